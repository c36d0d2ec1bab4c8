"""Early stopping, best weights, plateaus, smoothing and clipping: still functions of config, data and epoch."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F

from hpo.config import MLP, Exponential, Plateau, StepDecay, TrialConfig, WarmupCosine
from hpo.training import checkpoints
from hpo.training.dataset import ResidentData
from hpo.training.engine import EpochResult
from hpo.training.epoch import Run
from hpo.training.graphed_run import GraphedRun
from hpo.training.schedules import lr_factor
from hpo.training.solo import SoloEngine
from tests.helpers.training import CPU, MLP_RUN

STOPPING = dataclasses.replace(
    MLP_RUN, epochs=40, patience=3, best_weights=True, schedule=Plateau(patience=1, gamma=0.3)
)


@pytest.fixture(scope="module")
def digits() -> ResidentData:
    return SoloEngine(CPU).data(MLP_RUN)


def finish(run: Run) -> list[EpochResult]:
    while not run.finished:
        assert isinstance(run.train_epoch(), EpochResult)
    return [dataclasses.replace(result, seconds=0.0) for result in run.history]


def test_training_ends_when_nothing_improves_and_takes_the_best_weights(digits: ResidentData) -> None:
    run = Run(STOPPING, digits, CPU)
    history = finish(run)
    values = [result.validation_accuracy for result in history]
    best = values.index(max(values))
    assert len(history) < 40 and len(history) - 1 - best == 3
    assert [result.last for result in history] == [False] * (len(history) - 1) + [True]
    accuracy = run.evaluate(digits.validation_x, digits.validation_y).accuracy
    assert accuracy == run.final.validation_accuracy == max(values) > values[-1]
    # The same weights as those of a training that ends there.
    short = Run(dataclasses.replace(STOPPING, patience=None, best_weights=False), digits, CPU)
    for _ in range(best + 1):
        short.train_epoch()
    for name, value in short.model.state_dict().items():
        assert torch.equal(value, run.model.state_dict()[name]), name


@pytest.mark.parametrize("stop_at", [2, 5])
@pytest.mark.parametrize("kind", [Run, GraphedRun])
def test_a_resumed_training_stops_where_the_whole_one_does(digits: ResidentData, stop_at: int, kind: type[Run]) -> None:
    whole = kind(STOPPING, digits, CPU)
    expected = finish(whole)
    cut = kind(STOPPING, digits, CPU)
    for _ in range(stop_at):
        cut.train_epoch()
    content = checkpoints.to_bytes(cut.checkpoint())
    again = kind(STOPPING, digits, CPU, checkpoints.from_bytes(content, "test"))
    assert finish(again) == expected
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])


def test_a_plateau_lowers_the_rate_as_torch_does() -> None:
    losses = [1.0, 0.8, 0.79999, 0.81, 0.82, 0.7, 0.71, 0.72, 0.73, 0.74, 0.75, 0.76, 0.6]
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=2, factor=0.3, threshold=1e-4)
    for i in range(len(losses)):
        ours = lr_factor(Plateau(patience=2, gamma=0.3), 0, 1, losses[:i])
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12), i
        theirs.step(losses[i])


def test_steps_exponentials_and_warm_ups() -> None:
    step = [lr_factor(StepDecay(parts=3, gamma=0.1), i, 9) for i in range(9)]
    assert step == pytest.approx([1] * 3 + [0.1] * 3 + [0.01] * 3)
    exponential = [lr_factor(Exponential(final=0.01), i, 5) for i in range(5)]
    assert exponential == pytest.approx([1, 0.01**0.25, 0.1, 0.01**0.75, 0.01])
    warm = [lr_factor(WarmupCosine(warmup=0.2), i, 100) for i in range(100)]
    assert warm[:20] == sorted(warm[:20]) and warm[0] < 0.06 and warm[20] == 1.0
    assert warm[20:] == sorted(warm[20:], reverse=True) and warm[-1] < 0.001


def test_a_clipped_gradient_has_at_most_that_norm(digits: ResidentData) -> None:
    run = Run(dataclasses.replace(MLP_RUN, clip_norm=0.01), digits, CPU)
    for dropout in run.dropouts:
        dropout.start_epoch(0, 0, 1, 32)
    run.train_step(torch.arange(32))
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in run.model.parameters() if p.grad is not None]))
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


def test_label_smoothing_is_torchs(digits: ResidentData) -> None:
    smooth, plain = (
        Run(dataclasses.replace(MLP_RUN, label_smoothing=s, model=no_dropout(MLP_RUN)), digits, CPU) for s in (0.2, 0.0)
    )
    rows = torch.arange(32)
    logits = smooth.train_step(rows)
    plain.model.train()
    F.cross_entropy(plain.model(digits.train_x[rows]), digits.train_y[rows], label_smoothing=0.2).backward()  # type: ignore[no-untyped-call]
    for one, other in zip(smooth.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert logits.shape == (32, 10)


def no_dropout(config: TrialConfig) -> MLP:
    assert isinstance(config.model, MLP)
    return dataclasses.replace(config.model, dropout=(0.0,) * len(config.model.dropout))


def test_an_older_config_without_these_fields_is_read() -> None:
    content = MLP_RUN.to_dict()
    for name in ("label_smoothing", "clip_norm", "patience", "best_weights"):
        del content[name]
    assert TrialConfig.from_dict(json.loads(json.dumps(content)), "trial") == MLP_RUN
