"""The training loop of the peers in `benchmarks.peers`: what a careful user writes with torch alone."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import keel
from hpo import data, space
from hpo.config import OwnData, TrialConfig
from hpo.models import build_model
from hpo.space import SearchSpace
from hpo.suggesters import FixedSuggester
from hpo.training.dataset import ResidentData, resident
from hpo.training.optimizers import build_optimizer
from hpo.training.schedules import lr_factor

CPU = torch.device("cpu")
TASKS = {"ann_fashion": "ann_fashion", "digits": "ann_digits", "letter": "ann_tabular"}
LETTER_ROWS = 6000

Report = Callable[[int, float], None]
"""Takes the epoch, counted from 1, and the validation accuracy; may raise to end the training."""


@dataclass(frozen=True)
class Reported:
    """A line of a report."""

    trial: str
    epoch: int
    epochs: int
    value: float
    params: dict[str, Any]
    time: float
    """Seconds since 1970."""


def space_of(task: str) -> SearchSpace:
    """Return the space that all sides search."""
    found = space.load_space(TASKS[task])
    if task == "letter":
        found = found.model_copy(update={"data": OwnData(csv=str(keel.table("letter", LETTER_ROWS)), target="label")})
    return found


def suggest(task: str, trial: optuna.Trial) -> None:
    """Ask a trial for every parameter of a task's space."""
    space_of(task).draw(trial, seed=0)


@cache
def rows_of(task: str) -> ResidentData:
    """Return the standardized rows of a task; they are the same for all configurations of these spaces."""
    searched = space_of(task)
    parts = data.load_parts(data.info(searched.data), searched.split)
    config = searched.draw(FixedSuggester(searched.baselines[0].values()), seed=0)
    return resident(parts, config, CPU)


def train(task: str, config: TrialConfig, loader: bool, report: Report) -> None:
    """Train a configuration to its end in a plain loop: tensors that are indexed, or a DataLoader."""
    rows = rows_of(task)
    torch.manual_seed(config.seed)
    model = build_model(config.model, rows.input_shape, rows.classes, seed=config.seed)
    optimizer = build_optimizer(config.optimizer, model.parameters(), CPU)
    size = min(config.batch_size, len(rows.train_y))
    steps = config.epochs * (len(rows.train_y) // size)
    schedule = LambdaLR(optimizer, lambda step: lr_factor(config.schedule, step, steps))
    dataset = TensorDataset(rows.train_x, rows.train_y)
    batches = DataLoader(dataset, size, shuffle=True, drop_last=True) if loader else None
    for epoch in range(1, config.epochs + 1):
        model.train()
        for x, y in batches if batches is not None else indexed(rows, size):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y, label_smoothing=config.label_smoothing).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        report(epoch, accuracy(model, rows))


def indexed(rows: ResidentData, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the mini-batches of an epoch."""
    order = torch.randperm(len(rows.train_y))
    for i in range(0, len(order) - size + 1, size):
        part = order[i : i + size]
        yield rows.train_x[part], rows.train_y[part]


@torch.no_grad()
def accuracy(model: torch.nn.Module, rows: ResidentData) -> float:
    """Return the validation accuracy."""
    model.eval()
    starts = range(0, len(rows.validation_y), 1000)
    predicted = torch.cat([model(rows.validation_x[i : i + 1000]).argmax(1) for i in starts])
    return float((predicted == rows.validation_y).double().mean())


def append(folder: Path, line: Reported) -> None:
    """Write a line of this process's report."""
    with (folder / f"reports-{os.getpid()}.jsonl").open("a") as file:
        file.write(json.dumps(asdict(line)) + "\n")
