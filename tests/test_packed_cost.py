"""What an epoch of a lane costs besides its arithmetic: calls of kernels, tables of the host, waits for the device."""

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from hpo.config import (
    MLP,
    Constant,
    Cosine,
    Exponential,
    OneCycle,
    Plateau,
    Schedule,
    StepDecay,
    TrialConfig,
    WarmupCosine,
)
from hpo.models import build_model
from hpo.training.averages import ema_weight, ema_weights
from hpo.training.dataset import ResidentData
from hpo.training.devices import use_one_thread
from hpo.training.metrics import compute_metrics, confusions, metrics_of
from hpo.training.packed.compute.graphed_program import GraphedProgram
from hpo.training.packed.compute.memory import rows_in
from hpo.training.packed.compute.program import member_of
from hpo.training.packed.layout.bucket import bucket_of
from hpo.training.schedule_tables import lr_factors
from hpo.training.schedules import lr_factor
from hpo.training.torch_compat import TorchDispatchMode
from tests.helpers.packing import BATCH, CPU, FEATURES, OPTIMIZERS, random_rows

use_one_thread()
VIEWS = ("view", "t.", "transpose", "expand", "slice", "select.", "unsqueeze", "squeeze", "split", "unbind", "detach")
"""Beginnings of the names of operators that compute nothing."""


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the calls that compute something, by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        if not name.startswith(VIEWS):
            self.names[name] += 1
        return func(*args, **(kwargs or {}))


def program_of(slots: int, data: ResidentData) -> GraphedProgram:
    """Mixed MLPs of one to three layers, three activations, with and without batch norm and dropout."""
    chance = random.Random(0)
    members = []
    for key in range(slots):
        depth = 1 + key % 3
        activation = chance.choice(("relu", "gelu", "tanh"))
        norm, rate = chance.choice(("none", "batch")), chance.choice((0.0, 0.2))
        widths = tuple(chance.choice((16, 32, 48, 64)) for _ in range(depth))
        model = MLP(widths, (rate,) * depth, activation, norm)  # type: ignore[arg-type]
        config = TrialConfig("digits", model, OPTIMIZERS[key % 6], BATCH, 5, seed=key, schedule=OneCycle())
        members.append(member_of(key, config, build_model(model, data.input_shape, data.classes), None, CPU))
    return GraphedProgram(members, data, data.train_x, bucket_of(members[0].config, data))


@pytest.fixture(scope="module")
def program() -> GraphedProgram:
    program = program_of(64, random_rows(FEATURES))
    program.train_epoch()
    return program


def test_a_step_of_64_mixed_mlps_is_at_most_90_kernels(program: GraphedProgram) -> None:
    program.counter.zero_()
    calls = Calls()
    with calls:
        program.step()
    assert 40 < calls.names.total() <= 90, calls.names


def test_the_optimizer_is_at_most_14_kernels(program: GraphedProgram) -> None:
    calls = Calls()
    with calls:
        program.vectorized.apply(program.table[0, :, :-1])
    assert calls.names.total() <= 14, calls.names


def test_scoring_an_epoch_copies_once_to_the_host(program: GraphedProgram) -> None:
    calls = Calls()
    with calls:
        training = program.training_confusions()
        validation = confusions(
            program.evaluate(program.data.validation_x).transpose(0, 1), program.data.validation_y[:, None]
        )
    waiting = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "bincount", "equal.default")
    assert not [name for name in calls.names if name.startswith(waiting)]
    assert [len(metrics) for metrics in metrics_of([training, validation])] == [64, 64]


def test_the_confusions_of_all_slots_give_the_metrics_of_each() -> None:
    source = torch.Generator().manual_seed(0)
    logits = torch.randn(300, 5, 4, generator=source, dtype=torch.float64)
    logits[:, :, 3] -= 9  # a class that is never predicted
    own, common = (torch.randint(0, 4, (300, slots), generator=source) for slots in (5, 1))
    for y in (own, common):
        [metrics] = metrics_of([confusions(logits, y)])
        for slot, ours in enumerate(metrics):
            theirs = compute_metrics(logits[:, slot], y.expand(300, 5)[:, slot])
            for name, value in vars(theirs).items():
                assert getattr(ours, name) == pytest.approx(value, rel=0, abs=1e-14)


def test_a_loss_that_is_not_finite_stays_so() -> None:
    logits = torch.zeros(8, 2, 3)
    logits[3, 1] = torch.nan
    [metrics] = metrics_of([confusions(logits, torch.zeros(8, 1, dtype=torch.int64))])
    assert np.isfinite(metrics[0].loss) and not np.isfinite(metrics[1].loss)


@pytest.mark.parametrize(
    "schedule",
    [
        Constant(),
        Cosine(floor=0.1),
        OneCycle(),
        OneCycle(warmup=0.0),
        StepDecay(parts=4, gamma=0.3),
        Exponential(final=0.01),
        WarmupCosine(warmup=0.1),
        Plateau(1),
    ],
    ids=lambda schedule: schedule.name,
)
@pytest.mark.parametrize("steps", [1, 2, 35])
def test_the_rates_of_an_epoch_are_those_of_its_steps(schedule: Schedule, steps: int) -> None:
    losses = [1.0, 1.1, 1.2]
    for epoch in range(4):
        expected = [lr_factor(schedule, epoch * steps + step, 4 * steps, losses) for step in range(steps)]
        assert lr_factors(schedule, epoch * steps, steps, 4 * steps, losses) == pytest.approx(expected, rel=1e-13)


def test_the_weights_of_averages_of_an_epoch_are_those_of_its_steps() -> None:
    weights = ema_weights(np.array([0.3, 0.0, 2.0]), np.array([0, 5, 70]), 35)
    expected = [[ema_weight(0.3, step, 35), 0.0, ema_weight(2.0, 70 + step, 35)] for step in range(35)]
    assert weights == pytest.approx(np.array(expected), rel=1e-13)


def test_evaluation_takes_as_many_rows_at_once_as_fit() -> None:
    row_bytes = 64 * 784 * 4
    assert -(-10_000 // rows_in(70 * 10**9, row_bytes, 4)) <= 4
    assert rows_in(0, row_bytes, 4) == 64
    assert rows_in(None, row_bytes, 4) * row_bytes <= 64 * row_bytes + 2**22
