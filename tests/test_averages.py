"""Averaged weights: torch's moving average with a bias-corrected start, evaluated, kept, and resumed exactly."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hpo import user_code
from hpo.config import CNN, EMA, MLP, SGD, Constant, PythonNetwork, TrialConfig
from hpo.training import checkpoints
from hpo.training.averages import WeightAverage, ema_weight
from hpo.training.dataset import ResidentData
from hpo.training.devices import use_one_thread
from hpo.training.engine import EpochResult, Fault
from hpo.training.epoch import Run
from hpo.training.graphed_run import GraphedRun
from hpo.training.model_cost import memory_mb
from hpo.training.solo import SoloEngine
from tests.helpers.training import CPU, MLP_RUN

use_one_thread()
AVERAGED = dataclasses.replace(MLP_RUN, average=EMA(0.7), precision="fp32")
CONFIGS = {
    "mlp": AVERAGED,
    "cnn": dataclasses.replace(AVERAGED, model=CNN((8, 16), (0.2, 0.1), norm="batch"), epochs=4),
    "best weights": dataclasses.replace(AVERAGED, best_weights=True, patience=3),
}


@pytest.fixture(scope="module")
def digits() -> ResidentData:
    return SoloEngine(CPU).data(MLP_RUN)


def train(run: Run, epochs: int) -> list[EpochResult]:
    """Train; seconds are not part of what must be equal."""
    results = []
    for _ in range(epochs):
        if run.finished:
            break
        result = run.train_epoch()
        assert isinstance(result, EpochResult)
        results.append(dataclasses.replace(result, seconds=0.0))
    return results


def state(run: Run) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def states_after_each_step(
    config: TrialConfig, data: ResidentData, epochs: int, kind: type[Run] = Run
) -> list[dict[str, Tensor]]:
    """The weights and buffers of a training without averages after each of its steps."""
    run = kind(dataclasses.replace(config, average=MLP_RUN.average), data, CPU)
    states, update = [], run.update

    def update_and_keep() -> None:
        update()
        states.append(state(run))

    run.update = update_and_keep  # type: ignore[method-assign]
    train(run, epochs)
    return states


@pytest.mark.parametrize("steps", [1, 7, 300])
@pytest.mark.parametrize("horizon", [0.01, 0.5, 3.0])
def test_the_weights_of_the_steps_fall_exponentially_with_their_age(horizon: float, steps: int) -> None:
    decay, total, share = math.exp(-1 / (horizon * steps)), 3 * steps, np.zeros(3 * steps)
    for step in range(total):
        weight = ema_weight(horizon, step, steps)
        share *= 1 - weight
        share[step] = weight
    expected = decay ** np.arange(total - 1, -1, -1)
    np.testing.assert_allclose(share, expected / expected.sum(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("horizon", [5e-324, 1e-9, 1e9, 1.7e308])
def test_extreme_horizons_are_the_latest_value_or_the_plain_mean(horizon: float) -> None:
    weights = [ema_weight(horizon, step, 100) for step in range(1000)]
    expected = [1.0] * 1000 if horizon < 1 else [1 / (step + 1) for step in range(1000)]
    assert weights == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", [Run, GraphedRun])
def test_an_average_is_that_of_torch_with_a_bias_corrected_start(digits: ResidentData, kind: type[Run]) -> None:
    """torch's AveragedModel, given our weight of each step, on the weights and statistics of a plain training."""
    run = kind(AVERAGED, digits, CPU)
    steps, states = run.steps, states_after_each_step(AVERAGED, digits, 2, kind)
    plain = Run(MLP_RUN, digits, CPU).model

    def move(averages: Sequence[Tensor], values: Sequence[Tensor], count: Tensor | int) -> None:
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, ema_weight(0.7, int(count), steps))

    theirs = AveragedModel(plain, multi_avg_fn=move, use_buffers=True)
    for one in states:
        plain.load_state_dict(one)
        theirs.update_parameters(plain)
    train(run, 2)
    assert run.average is not None and len(states) == 2 * steps
    expected = theirs.module.state_dict()
    assert run.average.tensors.keys() == expected.keys() - {n for n in expected if n.endswith("num_batches_tracked")}
    for name, average in run.average.tensors.items():
        torch.testing.assert_close(average, expected[name], rtol=1e-5, atol=1e-6)
    for name, value in run.model.state_dict().items():  # the training itself is that without averages
        assert torch.equal(value, states[-1][name])


def test_after_many_steps_the_start_of_torchs_own_average_is_forgotten() -> None:
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    ours = WeightAverage(net, 1.0, 20, replaced=False)
    theirs = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(math.exp(-1 / 20)))  # type: ignore[no-untyped-call]
    differences = []
    for step in range(400):
        with torch.no_grad():
            net.weight.normal_()
        ours.update(step)
        theirs.update_parameters(net)
        differences.append(float((ours.tensors["weight"] - theirs.module.state_dict()["weight"]).abs().max()))
    assert max(differences[1:20]) > 0.05 and differences[-1] < 1e-6


def test_the_average_is_evaluated_and_the_plain_weights_train_on(digits: ResidentData) -> None:
    run, plain = Run(AVERAGED, digits, CPU), Run(MLP_RUN, digits, CPU)
    before = run.evaluate(digits.validation_x, digits.validation_y)
    assert before == plain.evaluate(digits.validation_x, digits.validation_y), "before the first step"
    ours, theirs = train(run, 3), train(plain, 3)
    assert [r.train_loss for r in ours] == [r.train_loss for r in theirs]
    assert all(one.validation_loss != other.validation_loss for one, other in zip(ours, theirs, strict=True))
    for name, value in state(run).items():
        assert torch.equal(value, plain.model.state_dict()[name])
    assert run.average is not None
    plain.model.load_state_dict(plain.model.state_dict() | run.average.tensors)
    assert plain.evaluate(digits.validation_x, digits.validation_y).loss == ours[-1].validation_loss
    np.testing.assert_array_equal(plain.probabilities(digits.train_x[:9]), run.probabilities(digits.train_x[:9]))
    assert run.examine() == plain.examine()


def test_an_evaluation_that_fails_leaves_the_plain_weights(digits: ResidentData) -> None:
    run = Run(AVERAGED, digits, CPU)
    train(run, 1)
    before = state(run)
    with pytest.raises(RuntimeError):
        run.evaluate(digits.validation_x[:, :1, :2], digits.validation_y)
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())


@pytest.mark.parametrize("best", [False, True])
def test_a_training_ends_with_averaged_weights(digits: ResidentData, best: bool) -> None:
    config = dataclasses.replace(AVERAGED, best_weights=best, optimizer=SGD(0.5), epochs=6)
    run = Run(config, digits, CPU)
    train(run, 6)
    assert run.finished and run.average is None
    assert run.evaluate(digits.validation_x, digits.validation_y).loss == run.final.validation_loss
    final = run.checkpoint()
    assert not [name for name in final.tensors if name.startswith("average.")]
    again = Run(config, digits, CPU, checkpoints.from_bytes(checkpoints.to_bytes(final), "final"))
    assert again.evaluate(digits.validation_x, digits.validation_y).loss == run.final.validation_loss


@pytest.mark.parametrize("kind", [Run, GraphedRun])
@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_resumed_training_is_bit_for_bit_the_uninterrupted_one(
    digits: ResidentData, name: str, kind: type[Run]
) -> None:
    config = CONFIGS[name]
    whole, stopped = kind(config, digits, CPU), kind(config, digits, CPU)
    curve, first = train(whole, config.epochs), train(stopped, 2)
    saved = checkpoints.to_bytes(stopped.checkpoint())
    torch.manual_seed(999)
    resumed = kind(config, digits, CPU, checkpoints.from_bytes(saved, "saved"))
    assert first + train(resumed, config.epochs) == curve
    ours, theirs = resumed.checkpoint().tensors, whole.checkpoint().tensors
    assert ours.keys() == theirs.keys()
    assert all(value.tobytes() == theirs[key].tobytes() for key, value in ours.items())


def test_a_training_that_diverges_is_a_fault(digits: ResidentData) -> None:
    run = Run(dataclasses.replace(AVERAGED, optimizer=SGD(1e30), model=MLP((8,), (0.0,))), digits, CPU)
    outcome = run.train_epoch()
    assert isinstance(outcome, Fault) and outcome.kind == "diverged"


def test_an_average_takes_the_memory_of_the_weights() -> None:
    parameters = 64 * 64 + 64 + 64 * 32 + 32 + 32 * 10 + 10 + 2 * (64 + 32)
    difference = memory_mb(AVERAGED, (1, 8, 8), 10) - memory_mb(MLP_RUN, (1, 8, 8), 10)
    assert difference == pytest.approx(4e-6 * parameters)


NETWORK = '''
import torch
from torch import nn

class Net(nn.Module):
    """Makes its buffer anew at each step, and uses one weight twice."""

    def __init__(self, inputs, classes):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(inputs, 16), nn.Linear(16, 16), nn.Linear(16, classes)
        self.third = nn.Linear(16, 16)
        self.third.weight = self.second.weight
        self.register_buffer("mean", torch.zeros(16))

    def forward(self, x):
        h = self.first(x.flatten(1)).tanh()
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        return self.out(self.third(self.second(h - self.mean).tanh()))

def make(params, shape, classes):
    return Net(torch.Size(shape).numel(), classes)
'''


def test_networks_of_the_users_own_are_averaged_with_the_buffers_that_they_replace(
    digits: ResidentData, tmp_path: Path
) -> None:
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    user_code.trust(path)
    reference, digest = f"{path}:make", user_code.digest_of(path)
    network = PythonNetwork(reference, digest, {})
    config = dataclasses.replace(AVERAGED, model=network, optimizer=SGD(0.3), schedule=Constant(), epochs=3)
    states = states_after_each_step(config, digits, 2)
    run = Run(config, digits, CPU)
    [*_, result] = train(run, 2)
    assert run.average is not None
    for name in ("mean", "second.weight", "third.weight"):
        expected = torch.zeros_like(states[0][name])
        for step, one in enumerate(states):
            expected.lerp_(one[name], ema_weight(0.7, step, run.steps))
        assert expected.any()
        torch.testing.assert_close(run.average.tensors[name], expected)
    assert torch.equal(run.model.state_dict()["mean"], states[-1]["mean"])
    saved = checkpoints.from_bytes(checkpoints.to_bytes(run.checkpoint()), "saved")
    assert train(Run(config, digits, CPU, saved), 1) == train(run, 1) and result.validation_accuracy > 0.5
