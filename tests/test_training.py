"""Training: a function of config, data and epoch - whoever trains, whatever came before, kill or no kill."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch

from hpo.config import (
    CNN,
    MLP,
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    OneCycle,
    Optimizer,
    RMSprop,
    Schedule,
    SGDMomentum,
    Split,
    TrialConfig,
)
from hpo.errors import TrainingError, UsageError
from hpo.training import checkpoints
from hpo.training.dataset import DataSets, ResidentData
from hpo.training.devices import choose_device, resolve_precision, use_one_thread, work_per_layer
from hpo.training.engine import EpochResult, Fault, TrialFault
from hpo.training.epoch import Run
from hpo.training.graphed_run import GraphedRun
from hpo.training.optimizers import build_optimizer
from hpo.training.randomness import StatelessDropout, data_order, generator, random_bytes
from hpo.training.schedules import lr_factor
from hpo.training.solo import SoloEngine
from tests.helpers.training import CPU, MLP_RUN

use_one_thread()
OPTIMIZERS: list[Optimizer] = [
    SGD(0.1, 1e-4),
    SGDMomentum(0.05, 1e-4, momentum=0.9, nesterov=True),
    Adam(2e-3, 1e-4),
    AdamW(2e-3, 1e-2),
    RMSprop(1e-3, 1e-4),
]
CNN_RUN = dataclasses.replace(MLP_RUN, model=CNN((8, 16), (0.2, 0.1), norm="batch", head_dropout=0.3), epochs=4)


@pytest.fixture(scope="module")
def digits() -> ResidentData:
    return SoloEngine(CPU).data(MLP_RUN)


def curve(run: Run, epochs: int) -> list[EpochResult]:
    """Train; seconds are not part of what must be equal."""
    results = []
    for _ in range(epochs):
        result = run.train_epoch()
        assert isinstance(result, EpochResult)
        results.append(dataclasses.replace(result, seconds=0.0))
    return results


def test_a_real_small_training_learns() -> None:
    engine = SoloEngine(CPU)
    engine.admit(1, dataclasses.replace(MLP_RUN, epochs=30))
    results = [engine.step()[1] for _ in range(30)]
    last = results[-1]
    assert isinstance(last, EpochResult) and last.validation_accuracy >= 0.95
    assert engine.examine(1).train_accuracy >= 0.98


@pytest.mark.parametrize("config", [MLP_RUN, CNN_RUN], ids=["mlp", "cnn"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.name)
def test_a_resumed_curve_equals_the_uninterrupted_one(
    config: TrialConfig, optimizer: Optimizer, digits: ResidentData
) -> None:
    config = dataclasses.replace(config, optimizer=optimizer)
    whole = curve(Run(config, digits, CPU), config.epochs)
    stopped = Run(config, digits, CPU)
    first = curve(stopped, 2)
    saved = checkpoints.to_bytes(stopped.checkpoint())
    torch.manual_seed(999)  # nothing may hang on what the process did before
    rest = curve(Run(config, digits, CPU, checkpoints.from_bytes(saved, "saved")), config.epochs - 2)
    assert first + rest == whole


def test_a_curve_does_not_depend_on_what_was_trained_before(digits: ResidentData) -> None:
    engine = SoloEngine(CPU)
    curves = []
    for config in (MLP_RUN, CNN_RUN, MLP_RUN):
        engine.admit(1, config)
        results = [engine.step()[1] for _ in range(3)]
        curves.append([dataclasses.replace(r, seconds=0.0) for r in results if isinstance(r, EpochResult)])
        engine.evict(1)
    assert curves[0] == curves[2] == curve(Run(MLP_RUN, digits, CPU), 3)


def test_another_seed_gives_another_curve(digits: ResidentData) -> None:
    assert curve(Run(MLP_RUN, digits, CPU), 1) != curve(Run(MLP_RUN.with_seed(4), digits, CPU), 1)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.name)
@pytest.mark.parametrize("config", [MLP_RUN, CNN_RUN], ids=["mlp", "cnn"])
def test_the_graphed_step_does_what_the_plain_one_does(
    config: TrialConfig, optimizer: Optimizer, digits: ResidentData
) -> None:
    """On a CPU the graphed run takes its step kernel by kernel: same rows, rates and masks, by the counter."""
    config = dataclasses.replace(config, optimizer=optimizer, precision="fp32")
    plain, graphed = curve(Run(config, digits, CPU), 3), curve(GraphedRun(config, digits, CPU), 3)
    for ours, theirs in zip(graphed, plain, strict=True):
        # Its learning rate is a float32 on the device, so the last bits may differ.
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-4)
        assert ours.validation_accuracy == pytest.approx(theirs.validation_accuracy, abs=0.01)


def test_a_graphed_run_resumes_exactly(digits: ResidentData) -> None:
    whole = curve(GraphedRun(MLP_RUN, digits, CPU), 5)
    stopped = GraphedRun(MLP_RUN, digits, CPU)
    assert curve(stopped, 2) + curve(GraphedRun(MLP_RUN, digits, CPU, stopped.checkpoint()), 3) == whole


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.name)
@pytest.mark.parametrize("config", [MLP_RUN, CNN_RUN], ids=["mlp", "cnn"])
def test_a_cuda_graph_trains_as_the_same_steps_one_by_one(config: TrialConfig, optimizer: Optimizer) -> None:
    config = dataclasses.replace(config, optimizer=optimizer, precision="fp32")
    cuda = torch.device("cuda", 0)
    data = SoloEngine(cuda).data(config)
    stepwise = GraphedRun(config, data, cuda)
    stepwise.step_graph.capturable = False
    graphed = GraphedRun(config, data, cuda)
    expected, got = curve(stepwise, 3), curve(graphed, 3)
    assert graphed.step_graph.graphs
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)


def test_a_loss_that_is_not_finite_is_a_fault(digits: ResidentData) -> None:
    run = Run(dataclasses.replace(MLP_RUN, optimizer=SGD(1e30), model=MLP((8,), (0.0,))), digits, CPU)
    outcome = run.train_epoch()
    assert isinstance(outcome, Fault) and outcome.kind == "diverged"
    assert not run.history


def test_a_trial_that_cannot_start_is_refused_with_its_fault() -> None:
    engine = SoloEngine(CPU)
    with pytest.raises(TrialFault, match=r"images must be at least 2\*\*depth"):
        engine.admit(1, dataclasses.replace(MLP_RUN, model=CNN((4,) * 5, (0.0,) * 5)))
    assert engine.room() == 1


@pytest.mark.parametrize("kind", [Run, GraphedRun])
@pytest.mark.parametrize("parts", [2, 3, 5])
def test_a_batch_in_parts_trains_as_the_whole_batch(digits: ResidentData, kind: type[Run], parts: int) -> None:
    """Without batch norm the parts' gradients add up to the batch's; even the dropout masks are the same."""
    config = dataclasses.replace(MLP_RUN, model=MLP((64, 32), (0.3, 0.1)), precision="fp32")
    whole = curve(kind(config, digits, CPU), 3)
    in_parts = curve(kind(dataclasses.replace(config, accumulation=parts), digits, CPU), 3)
    for ours, theirs in zip(in_parts, whole, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-4)


def test_of_the_cuts_of_a_data_set_the_latest_two_are_kept() -> None:
    sets = DataSets(torch.device("cpu"))
    configs = [dataclasses.replace(MLP_RUN, split=Split(0.2, seed=seed)) for seed in range(3)]
    first, second, third = (sets.of(config) for config in configs)
    assert sets.of(configs[1]) is second and sets.of(configs[2]) is third
    assert sets.of(configs[0]) is not first
    assert torch.equal(sets.of(configs[0]).validation_x, first.validation_x)
    assert not torch.equal(second.validation_x, first.validation_x)


def test_a_batch_larger_than_the_data_is_the_whole_data(digits: ResidentData) -> None:
    run = Run(dataclasses.replace(MLP_RUN, batch_size=10**6), digits, CPU)
    assert run.batch_size == len(digits.train_y) and run.steps == 1
    curve(run, 1)


def test_validation_figures_are_those_of_a_plain_evaluation(digits: ResidentData) -> None:
    run = Run(MLP_RUN, digits, CPU)
    [result] = curve(run, 1)
    run.model.eval()
    with torch.no_grad():
        logits = run.model(digits.validation_x)
    assert result.validation_accuracy == (logits.argmax(1) == digits.validation_y).double().mean().item()
    expected = torch.nn.functional.cross_entropy(logits, digits.validation_y).item()
    assert result.validation_loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("config", OPTIMIZERS, ids=lambda o: o.name)
def test_an_optimizer_is_torchs_own_with_the_configs_numbers(config: Optimizer) -> None:
    torch.manual_seed(0)
    ours = torch.randn(5, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    built = build_optimizer(config, [ours], CPU)
    plain: dict[str, torch.optim.Optimizer] = {
        "sgd": torch.optim.SGD([theirs], lr=0.1, weight_decay=1e-4),
        "sgd_momentum": torch.optim.SGD([theirs], lr=0.05, weight_decay=1e-4, momentum=0.9, nesterov=True),
        "adam": torch.optim.Adam([theirs], lr=2e-3, weight_decay=1e-4),
        "adamw": torch.optim.AdamW([theirs], lr=2e-3, weight_decay=1e-2),
        "rmsprop": torch.optim.RMSprop([theirs], lr=1e-3, weight_decay=1e-4),
    }
    for _ in range(5):
        for parameter, optimizer in ((ours, built), (theirs, plain[config.name])):
            optimizer.zero_grad()
            (parameter**2).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    assert torch.allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (Constant(), lambda o, n: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
        (Cosine(), lambda o, n: torch.optim.lr_scheduler.CosineAnnealingLR(o, n)),
        (Cosine(floor=0.1), lambda o, n: torch.optim.lr_scheduler.CosineAnnealingLR(o, n, eta_min=0.05)),
        (OneCycle(), lambda o, n: torch.optim.lr_scheduler.OneCycleLR(o, 0.5, n, cycle_momentum=False)),
        (
            OneCycle(warmup=0.1),
            lambda o, n: torch.optim.lr_scheduler.OneCycleLR(o, 0.5, n, pct_start=0.1, cycle_momentum=False),
        ),
    ],
)
def test_a_schedule_is_torchs_own_as_a_function_of_the_step(
    schedule: Schedule, make: Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler]
) -> None:
    steps = 200
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    scheduler = make(optimizer, steps)
    for step in range(steps):
        assert 0.5 * lr_factor(schedule, step, steps) == pytest.approx(
            optimizer.param_groups[0]["lr"], rel=1e-6, abs=1e-9
        )
        optimizer.step()
        scheduler.step()


def test_dropout_keeps_its_rate_and_its_mean() -> None:
    dropout = StatelessDropout(0.3, layer=0, whole_channels=False)
    dropout.start_epoch(seed=1, epoch=0, steps=100, batch=64)
    kept = torch.cat([dropout(torch.ones(64, 128)) for _ in range(100)])
    assert (kept == 0).double().mean().item() == pytest.approx(0.3, abs=0.003)
    assert kept.mean().item() == pytest.approx(1.0, abs=0.005)
    assert set(kept.unique().tolist()) == {0.0, kept.max().item()}  # type: ignore[no-untyped-call]


def test_dropout_masks_follow_from_seed_epoch_layer_and_step() -> None:
    def masks(seed: int, epoch: int, layer: int) -> torch.Tensor:
        dropout = StatelessDropout(0.5, layer, whole_channels=False)
        dropout.start_epoch(seed, epoch, steps=8, batch=64)
        return torch.stack([dropout(torch.ones(64, 4000)) for _ in range(8)])  # more than one chunk

    reference = masks(1, 2, 3)
    torch.rand(100)
    assert torch.equal(masks(1, 2, 3), reference)
    for other in (masks(2, 2, 3), masks(1, 3, 3), masks(1, 2, 4)):
        assert not torch.equal(other, reference)
    assert len({tuple(step[0, :40].tolist()) for step in reference}) == 8


def test_dropout_of_whole_channels_drops_whole_channels() -> None:
    dropout = StatelessDropout(0.5, 0, whole_channels=True)
    dropout.start_epoch(0, 0, 1, 16)
    out = dropout(torch.ones(16, 8, 5, 5)).flatten(2)
    assert torch.equal(out.amax(2), out.amin(2)) and 0 < (out[..., 0] == 0).sum() < 128


def test_random_bytes_are_uniform() -> None:
    counts = torch.bincount(random_bytes(256 * 4000, generator("cpu", "t", 1)).long(), minlength=256).double()
    chi_squared = ((counts - 4000) ** 2 / 4000).sum().item()
    assert chi_squared < 255 + 5 * math.sqrt(2 * 255)


def test_an_epochs_order_visits_every_row_and_differs_by_epoch() -> None:
    first, second = (data_order(7, epoch, 1000, CPU) for epoch in (0, 1))
    assert sorted(first.tolist()) == list(range(1000)) and not torch.equal(first, second)


def test_auto_precision_is_a_rule_of_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = MLP((64,), (0.0,)), MLP((512, 256), (0.0, 0.0))
    assert work_per_layer(small, (784,), 32) == 32 * (784 * 64 + 64 * 10) / 2
    for unit, from_64_rows_on in (("amx_bf16", "fp32"), ("avx512_bf16", "bf16")):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda unit=unit: {unit: True})
        assert resolve_precision("auto", small, (784,), 32, CPU) == "fp32"
        assert resolve_precision("auto", large, (784,), 64, CPU) == from_64_rows_on
        assert resolve_precision("auto", large, (784,), 256, CPU) == "bf16"
        assert resolve_precision("fp32", large, (784,), 256, CPU) == "fp32"
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {})
    assert resolve_precision("auto", large, (784,), 256, CPU) == "fp32"


@pytest.mark.slow
def test_bf16_learns_as_fp32_does(digits: ResidentData) -> None:
    config = dataclasses.replace(MLP_RUN, epochs=15)
    last = [curve(Run(dataclasses.replace(config, precision=p), digits, CPU), 15)[-1] for p in ("fp32", "bf16")]
    assert last[1].validation_accuracy == pytest.approx(last[0].validation_accuracy, abs=0.03)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu:1", "cuda:x", ""])
def test_an_unknown_device_is_named(name: str) -> None:
    with pytest.raises(UsageError, match=rf'No device named "{name}" on this machine. Known: auto, cpu'):
        choose_device(name)


def test_a_damaged_checkpoint_is_named(digits: ResidentData) -> None:
    content = checkpoints.to_bytes(Run(MLP_RUN, digits, CPU).checkpoint())
    for broken in (content[: len(content) // 2], b"", content[:8] + b"x" * 100):
        with pytest.raises(
            TrainingError, match=r"1.safetensors: must be a checkpoint written by hpo, got a damaged file"
        ):
            checkpoints.from_bytes(broken, "1.safetensors")
