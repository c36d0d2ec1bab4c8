"""What the tests of packed training have in common: fp64 rows, lanes, and what the solo engine makes of a trial."""

import dataclasses
import random
from collections.abc import Sequence

import pytest
import torch

from hpo.config import (
    CNN,
    EMA,
    MLP,
    SGD,
    Adam,
    AdamW,
    Average,
    Constant,
    Cosine,
    NoAverage,
    OneCycle,
    Optimizer,
    Plateau,
    RMSprop,
    Schedule,
    SGDMomentum,
    TrialConfig,
)
from hpo.models import build_model
from hpo.training.dataset import ResidentData
from hpo.training.engine import Checkpoint, EpochResult
from hpo.training.epoch import Run
from hpo.training.packed.compute.cnn import ConvImpl
from hpo.training.packed.compute.network import inputs_of
from hpo.training.packed.compute.program import member_of
from hpo.training.packed.layout.bucket import bucket_of
from hpo.training.packed.scheduling.lane import Lane

CPU = torch.device("cpu")
OPTIMIZERS: list[Optimizer] = [
    SGD(0.1, 1e-3),
    SGDMomentum(0.05, 1e-3, momentum=0.9),
    SGDMomentum(0.05, 1e-4, momentum=0.8, nesterov=True),
    Adam(2e-3, 1e-3, beta1=0.85, eps=1e-5),
    AdamW(2e-3, 1e-2, beta2=0.99, eps=1e-5),
    RMSprop(1e-3, 1e-3, alpha=0.95, eps=1e-5),
]
"""Where a bias is followed by batch norm its gradient is zero but for rounding. What divides the gradient by its own
size makes steps of that: with torch's eps of 1e-8, 1e-17 grows to 1e-11 in 200 steps, in either engine.
"""
ACTIVATIONS = ["relu", "leaky_relu", "gelu", "tanh", "sigmoid"]
ROWS, FEATURES, CLASSES, BATCH, EPOCHS = 640, 20, 5, 64, 20
CNN_EPOCHS = 3
FORMS: dict[str, dict[str, object]] = {
    "one stage, averaged": {"stages": 1},
    "two stages, flat, dense": {"stages": 2, "head": "flatten", "head_width": 24},
    "doubled convolutions, both pools, 2x2 averages": {
        "stages": 3, "convs": (2, 1, 2), "pool": ("avg", "none", "max"), "head_size": 2, "kernel": 5
    },
}  # fmt: skip


def average_of(number: int) -> Average:
    """Half of the trials have an average, with a horizon of its own; of each optimizer in turn."""
    return EMA(0.2 + 0.1 * number) if (number + number // 6) % 2 else NoAverage()


def random_rows(*shape: int, rows: int = ROWS) -> ResidentData:
    """Random rows of a shape."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(rows + 100, *shape, generator=source)
    y = torch.randint(0, CLASSES, (rows + 100,), generator=source)
    return ResidentData(x[:rows], y[:rows], x[rows:], y[rows:], torch.zeros(shape[0]), CLASSES, shape)


def random_images() -> ResidentData:
    """Random images of two colours, five batches of them."""
    return random_rows(2, 9, 8, rows=5 * BATCH)


def admit(lane: Lane, key: int, config: TrialConfig, checkpoint: Checkpoint | None = None) -> None:
    model = build_model(config.model, lane.data.input_shape, CLASSES, seed=config.seed)
    lane.admit(member_of(key, config, model, checkpoint, CPU))


def lane_of(configs: Sequence[TrialConfig], data: ResidentData, conv_impl: ConvImpl = "grouped") -> Lane:
    train_x, validation_x = (inputs_of(configs[0], x) for x in (data.train_x, data.validation_x))
    lane = Lane(bucket_of(configs[0], data), 64, data, train_x, validation_x, conv_impl=conv_impl)
    for key, config in enumerate(configs):
        admit(lane, key, config)
    return lane


def train(lane: Lane, epochs: int) -> dict[int, list[EpochResult]]:
    """Train; seconds are not part of what must be equal."""
    curves: dict[int, list[EpochResult]] = {}
    for _ in range(epochs):
        lane.launch()
        for key, result in lane.collect().items():
            assert isinstance(result, EpochResult)
            curves.setdefault(key, []).append(dataclasses.replace(result, seconds=0.0))
    return curves


def alone(config: TrialConfig, data: ResidentData, checkpoint: Checkpoint | None = None) -> Run:
    """The solo engine's run, trained to its end."""
    run = Run(config, data, CPU, checkpoint)
    while not run.finished:
        assert isinstance(run.train_epoch(), EpochResult)
    return run


def assert_same_curve(ours: Sequence[EpochResult], theirs: Sequence[EpochResult]) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.epoch, mine.last) == (other.epoch, other.last)
        for name in ("validation_accuracy", "validation_macro_f1", "train_accuracy", "validation_loss", "train_loss"):
            assert getattr(mine, name) == pytest.approx(getattr(other, name), rel=0, abs=1e-12)


def assert_same_state(ours: Checkpoint, theirs: Checkpoint) -> None:
    assert ours.tensors.keys() == theirs.tensors.keys()
    for name, value in ours.tensors.items():
        assert value.shape == theirs.tensors[name].shape
        assert abs(value - theirs.tensors[name]).max() <= 1e-12, name


def mixed_mlps(dropout: bool) -> list[TrialConfig]:
    """24 trials that differ in all that may differ within a lane."""
    chance = random.Random(0)
    schedules: list[Schedule] = [Constant(), OneCycle(), Cosine(), Plateau(1)]
    configs = []
    for i in range(24):
        depth = 1 + i % 3
        model = MLP(
            tuple(chance.choice([3, 7, 16, 20, 33]) for _ in range(depth)),
            tuple(chance.choice([0.0, 0.001, 0.3, 0.5]) if dropout else 0.0 for _ in range(depth)),
            ACTIVATIONS[i % 5],  # type: ignore[arg-type]
            "batch" if chance.random() < 0.5 else "none",
        )
        configs.append(
            TrialConfig(
                "digits",
                model,
                OPTIMIZERS[i % 6],
                BATCH,
                EPOCHS,
                seed=i,
                schedule=schedules[i % 4],
                label_smoothing=0.1 * (i % 2),
                class_weight="balanced" if i % 5 < 2 else "none",
                clip_norm=0.5 if i % 4 == 1 else None,
                best_weights=i % 7 == 0,
                average=average_of(i),
                precision="fp32",
            )
        )
    return configs


def mixed_cnns(form: str, dropout: bool, count: int) -> list[TrialConfig]:
    """Trials that differ in all that may differ within a lane of one form."""
    chance = random.Random(form)
    fixed = dict(FORMS[form])
    stages, dense = int(fixed.pop("stages")), "head_width" in fixed  # type: ignore[call-overload]
    schedules: list[Schedule] = [Constant(), OneCycle(), Cosine()]
    configs = []
    for i in range(count):
        model = CNN(
            tuple(chance.choice([3, 4, 7, 8]) for _ in range(stages)),
            tuple(chance.choice([0.0, 0.1, 0.4]) if dropout else 0.0 for _ in range(stages)),
            activation=ACTIVATIONS[i % 5],  # type: ignore[arg-type]
            norm="batch" if chance.random() < 0.5 else "none",
            head_dropout=chance.choice([0.0, 0.3]) if dropout else 0.0,
            **(fixed | ({"head_width": chance.choice([9, 16, 24])} if dense else {})),  # type: ignore[arg-type]
        )
        configs.append(
            TrialConfig(
                "digits",
                model,
                OPTIMIZERS[i % 6],
                BATCH,
                CNN_EPOCHS,
                seed=i,
                schedule=schedules[i % 3],
                label_smoothing=0.1 * (i % 2),
                class_weight="balanced" if i % 5 < 2 else "none",
                clip_norm=0.5 if i % 4 == 1 else None,
                best_weights=i % 7 == 0,
                average=average_of(i),
                precision="fp32",
            )
        )
    return configs
