"""Which recipe finds the best network for the same training? Whole studies on small tasks, over many seeds.

    python -m benchmarks.recipes [--seeds 20] [--epochs 400] [--tasks ...] [--recipes ...] [-o FILE]

Each study may train so many epochs in all, whatever its pruner saves on one trial goes to others. Its winner is then
trained on three further seeds and tested. Shown for each task: the mean test score of each recipe over the studies'
seeds, and how far it lies above the first recipe's on the same seeds, with the 95 % interval of that mean difference.
"""

import argparse
import json
import platform
import statistics
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from hpo import data, space
from hpo.artifacts import FolderFiles
from hpo.config import Split
from hpo.ranges import Choices, IntRange
from hpo.recipe import Budget, Pruner, Sampler, StudyRecipe
from hpo.results.intervals import mean_interval
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.worker import work
from hpo.space import SearchSpace
from hpo.store import queries, studies
from hpo.store.database.connect import open_store
from hpo.store.database.url import parse
from hpo.strategy.samplers import derived_seed
from hpo.training.dataset import standardized
from hpo.training.devices import use_one_thread
from hpo.training.engine import EpochResult, Fault
from hpo.training.epoch import Run
from hpo.training.solo import SoloEngine

CPU = torch.device("cpu")
TPE10, TPE20 = (Sampler(name="tpe", startup_trials=n) for n in (10, 20))
HALVING = Pruner(name="successive_halving", min_epochs=3, reduction=3)
RECIPES = {
    "TPE after 20, halving from 3, thirds": (TPE20, HALVING),
    "random, none": (Sampler(name="random"), Pruner(name="none")),
    "TPE, none": (TPE10, Pruner(name="none")),
    "TPE, halving from 1, fourths": (TPE10, Pruner(name="successive_halving", min_epochs=1, reduction=4)),
    "TPE, halving from 3, thirds": (TPE10, HALVING),
    "TPE after 20, halving from 4, halves": (TPE20, Pruner(name="successive_halving", min_epochs=4, reduction=2)),
    "TPE, median from 4": (TPE10, Pruner(name="median", min_epochs=4)),
    "TPE, Hyperband from 3, thirds": (TPE10, Pruner(name="hyperband", min_epochs=3, reduction=3)),
    "random, halving from 3, thirds": (Sampler(name="random"), HALVING),
    "GP, halving from 3, thirds": (Sampler(name="gp"), HALVING),
}
TASKS = ("mnist", "digits", "breast_cancer")


class CountedEngine(SoloEngine):
    """A solo engine that says stop after so many epochs."""

    def __init__(self, stop: threading.Event, epochs: int) -> None:
        super().__init__(CPU)
        self.stop, self.left = stop, epochs

    def step(self) -> dict[int, EpochResult | Fault]:
        self.left -= 1
        if self.left <= 0:
            self.stop.set()
        return super().step()


def task(name: str) -> SearchSpace:
    """Return a small space: MNIST on a hundredth of its rows, the others whole; batches that make epochs cheap."""
    changes: dict[str, Any] = {"baselines": [], "batch_size": Choices[int](choices=[32, 64, 128])}
    if name == "mnist":
        found = space.load_space("ann_mnist")
        assert found.mlp is not None
        narrow = found.mlp.model_copy(update={"width": IntRange(low=8, high=128, step=8)})
        return found.model_copy(update={**changes, "mlp": narrow, "split": Split(1000), "data_fraction": 0.01})
    found = space.load_space("ann_digits" if name == "digits" else "ann_breast_cancer")
    return found.model_copy(update={**changes, "data": name})


@cache
def parts_of(name: str) -> tuple[data.Parts, torch.Tensor, torch.Tensor]:
    """Return a task's data, and its standardized test rows with their labels."""
    found = task(name)
    parts = data.load_parts(data.info(found.data), found.split)
    rows = data.load_test(parts.info)
    return parts, standardized(rows, parts, CPU), torch.from_numpy(rows.y)


def whole_study(job: tuple[str, str, int, int]) -> dict[str, Any]:
    """Search with so many epochs, train the winner on three seeds, and test."""
    use_one_thread()
    name, recipe, seed, epochs = job
    found, (sampler, pruner) = task(name), RECIPES[recipe]
    plan = StudyRecipe(seed=seed, budget=Budget(trials=100_000), sampler=sampler, pruner=pruner)
    stop = threading.Event()
    engine = CountedEngine(stop, epochs)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(parse(f"sqlite:///{folder}/studies.db"), create=True)
        studies.create(store, "s", name, found, plan, data.fingerprint(data.info(found.data), found.split))
        study = studies.load_study(store, "s")
        work(
            store,
            study,
            engine,
            CheckpointRetention(FolderFiles(Path(folder)), study.recipe.checkpoints),
            {},
            stopping=stop,
        )
        with store.read() as connection:
            [best] = queries.best_trials(connection, study.study_id, 1)
            state = queries.study(connection, study.study_id)
        store.dispose()
    config = best.config
    _, test_x, test_y = parts_of(name)
    scores = []
    for i in range(3):
        again = replace(config, seed=derived_seed(seed, "again", i))
        run = Run(again, engine.data(config), CPU)
        while not run.finished and not isinstance(run.train_epoch(), Fault):
            pass
        scores.append(run.evaluate(test_x, test_y).accuracy)
    return {"task": name, "recipe": recipe, "seed": seed, "test": statistics.fmean(scores), "trials": state.finished}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, default=20)
    arguments.add_argument("--epochs", type=int, default=300)
    arguments.add_argument("--tasks", nargs="+", default=TASKS)
    arguments.add_argument("--recipes", nargs="+", default=list(RECIPES))
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("-o", "--output", type=Path)
    options = arguments.parse_args()
    jobs = [
        (t, r, seed, options.epochs) for seed in range(options.seeds) for t in options.tasks for r in options.recipes
    ]
    rows = []
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for row in pool.map(whole_study, jobs):
            rows.append(row)
            print(f"{row['task']:14s} {row['recipe']:38s} seed {row['seed']:2d}: {row['test']:.4f}", flush=True)
            if options.output:
                options.output.write_text(json.dumps(report(rows, options.epochs), indent=2) + "\n")
    for line in report(rows, options.epochs)["summary"]:
        print(line)


def report(rows: list[dict[str, Any]], epochs: int) -> dict[str, Any]:
    """Return the rows with what they come to."""
    summary = []
    for name in dict.fromkeys(row["task"] for row in rows):
        by_recipe: dict[str, dict[int, dict[str, Any]]] = {}
        for row in rows:
            if row["task"] == name:
                by_recipe.setdefault(row["recipe"], {})[row["seed"]] = row
        first = next(iter(by_recipe.values()))
        for recipe, found in by_recipe.items():
            gaps = [found[seed]["test"] - first[seed]["test"] for seed in found if seed in first]
            gap = mean_interval(gaps) if len(gaps) > 1 else None
            summary.append(
                {
                    "task": name,
                    "recipe": recipe,
                    "studies": len(found),
                    "mean_test": round(statistics.fmean(row["test"] for row in found.values()), 5),
                    "mean_trials": round(statistics.fmean(row["trials"] for row in found.values()), 1),
                    "over_first": round(statistics.fmean(gaps), 5),
                    "interval": None if gap is None else [round(gap.low, 5), round(gap.high, 5)],
                }
            )
    return {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "epochs": epochs,
        "summary": summary,
        "rows": rows,
    }


if __name__ == "__main__":
    main()
