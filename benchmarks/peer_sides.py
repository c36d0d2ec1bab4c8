"""The sides of `benchmarks.peers`, each a process of its own: the same ranges, searched as that tool's users do.

    python -m benchmarks.peer_sides SIDE TASK SEED FOLDER [--baselines]

It searches until it is stopped. Every training of a peer appends one line to FOLDER/reports-PID.jsonl after each epoch,
and hpo keeps its own store in FOLDER. The peers' sides draw from hpo's space (so all have the same ranges) and build
hpo's networks and optimizers; their training loop is what a careful user writes with torch alone.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
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
from hpo.training.devices import use_one_thread
from hpo.training.optimizers import build_optimizer
from hpo.training.schedules import lr_factor

CPU = torch.device("cpu")
TASKS = {"ann_fashion": "ann_fashion", "digits": "ann_digits", "letter": "ann_tabular"}
SIDES = ("hpo", "optuna", "optuna, DataLoader", "ray")
PROCESSES = 2
"""Trainings at once, one thread each: one for each core."""
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
    hits = sum(
        int((model(x).argmax(1) == y).sum())
        for x, y in zip(rows.validation_x.split(1000), rows.validation_y.split(1000), strict=True)
    )
    return hits / len(rows.validation_y)


def append(folder: Path, line: Reported) -> None:
    """Write a line of this process's report."""
    with (folder / f"reports-{os.getpid()}.jsonl").open("a") as file:
        file.write(json.dumps(asdict(line)) + "\n")


def hpo_side(task: str, seed: int, folder: Path) -> int:
    """Run `hpo run` without a limit of its own."""
    environment = {**os.environ, "HPO_STORAGE": f"sqlite:///{folder}/studies.db"}
    own = ["--data", str(keel.table("letter", LETTER_ROWS)), "--label", "label"] if task == "letter" else []
    command = ["run", "--space", TASKS[task], "--study", "s", "--seed", str(seed), "--trials", "100000", *own]
    return subprocess.run([sys.executable, "-m", "hpo", *command], env=environment, check=False).returncode


def optuna_worker(task: str, seed: int, folder: Path, loader: bool) -> None:
    """Optimize until the process is stopped: Optuna's default sampler, its default pruner."""
    use_one_thread()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    searched = space_of(task)
    study = optuna.load_study(
        study_name="s",
        storage=f"sqlite:///{folder}/optuna.db",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(),
    )

    def objective(trial: optuna.Trial) -> float:
        config = searched.draw(trial, seed=trial.number)
        last = 0.0

        def report(epoch: int, value: float) -> None:
            nonlocal last
            last = value
            append(folder, Reported(str(trial.number), epoch, config.epochs, value, trial.params, time.time()))
            trial.report(value, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        train(task, config, loader, report)
        return last

    study.optimize(objective, catch=(RuntimeError,))


def optuna_side(task: str, seed: int, folder: Path, *, loader: bool, baselines: bool) -> None:
    """Two processes on one SQLite store."""
    study = optuna.create_study(study_name="s", storage=f"sqlite:///{folder}/optuna.db", direction="maximize")
    for baseline in space_of(task).baselines if baselines else ():
        study.enqueue_trial(dict(baseline.values()))
    context = get_context("spawn")
    workers = [
        context.Process(target=optuna_worker, args=(task, seed * PROCESSES + i, folder, loader), daemon=True)
        for i in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def ray_side(task: str, seed: int, folder: Path, *, baselines: bool) -> None:
    """Ray Tune: OptunaSearch and ASHA, one core for a trial."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    searched = space_of(task)

    def draw(trial: optuna.Trial) -> None:
        searched.draw(trial, seed=0)

    def trainable(params: dict[str, Any]) -> None:
        use_one_thread()
        name = tune.get_context().get_trial_id()
        config = searched.draw(FixedSuggester(params), seed=int(name.split("_")[-1]))

        def report(epoch: int, value: float) -> None:
            append(folder, Reported(str(name), epoch, config.epochs, value, params, time.time()))
            tune.report({"accuracy": value, "training_iteration": epoch})

        train(task, config, False, report)

    points = [dict(b.values()) for b in searched.baselines] if baselines else None
    ray.init(num_cpus=PROCESSES, include_dashboard=False, object_store_memory=200 * 2**20, log_to_driver=False)
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(
                space=draw,
                metric="accuracy",
                mode="max",
                points_to_evaluate=points,
                sampler=optuna.samplers.TPESampler(seed=seed),
            ),
            scheduler=ASHAScheduler(
                metric="accuracy", mode="max", max_t=searched.max_epochs, grace_period=3, reduction_factor=3
            ),
            num_samples=-1,
            time_budget_s=24 * 3600,
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "ray"), verbose=0),
    ).fit()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("side", choices=SIDES)
    arguments.add_argument("task", choices=list(TASKS))
    arguments.add_argument("seed", type=int)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--baselines", action="store_true")
    options = arguments.parse_args()
    task, seed, folder = options.task, options.seed, options.folder.absolute()
    match options.side:
        case "hpo":
            sys.exit(hpo_side(task, seed, folder))
        case "ray":
            ray_side(task, seed, folder, baselines=options.baselines)
        case _:
            optuna_side(task, seed, folder, loader="DataLoader" in options.side, baselines=options.baselines)


if __name__ == "__main__":
    main()
