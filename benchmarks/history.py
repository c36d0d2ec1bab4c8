"""Does a search lose anything by learning from a part of a large study (`hpo.strategy.history`)?

    python -m benchmarks.history [--trials 4000] [--seeds 3] [--processes 2] [-o FILE]

Whole studies of ann_fashion's space, without training: a trial's score follows from its configuration by a formula,
plus luck that follows from its seed. Each seed is searched twice: with the whole study in memory, and with the part of
it that is kept beyond 2,000 trials. Shown: the formula's value, without luck, of the best trial of the search; the mean
value of the last quarter of the trials; the CPU time of a draw at the end.
"""

import argparse
import dataclasses
import json
import math
import platform
import random
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from hpo.artifacts import FolderFiles
from hpo.config import MLP, TrialConfig
from hpo.optuna_compat import silence
from hpo.recipe import Budget, Pruner, load_recipe
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.loop import Loop
from hpo.runner.session import Session
from hpo.space import load_space
from hpo.store import queries, studies
from hpo.store.database.connect import open_store
from hpo.store.database.url import parse
from hpo.training.engine import EpochResult, Fault
from hpo.training.simulated import SimulatedEngine

LUCK = 0.002


def worth(config: TrialConfig) -> float:
    """Return the score of a configuration without luck: best for a certain rate by optimizer, width, depth, dropout."""
    assert isinstance(config.model, MLP)
    best_rate = -2.7 if config.optimizer.name.startswith("adam") else -1.2
    rate = math.log10(config.optimizer.lr) - best_rate + 0.3 * math.log2(128 / config.batch_size) / 3
    width = math.log2(sum(config.model.widths) / 700)
    depth, dropout = len(config.model.widths) - 2, max(config.model.dropout or (0.0,)) - 0.3
    loss = 0.02 * rate**2 + 0.004 * width**2 + 0.002 * depth**2 + 0.05 * dropout**2
    return 0.92 - loss - (0.003 if config.optimizer.name == "sgd" else 0.0)


class Formula(SimulatedEngine):
    """One epoch whose score is the formula's, and luck."""

    def step(self) -> dict[int, EpochResult | Fault]:
        outcomes = super().step()
        for key, outcome in outcomes.items():
            config = self.trials[key].config
            if isinstance(outcome, EpochResult):
                value = worth(config) + random.Random(config.seed).gauss(0, LUCK)
                outcomes[key] = dataclasses.replace(outcome, validation_accuracy=value)
        return outcomes


def searched(job: tuple[int, int, bool]) -> dict[str, Any]:
    """Search once (seed, trials, with the whole study?); return what was found, and what a draw cost at the end."""
    seed, trials, whole = job
    silence()
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(parse(f"sqlite:///{folder}/studies.db"), create=True)
        space = load_space("ann_fashion").model_copy(update={"epochs": 1, "baselines": []})
        changes = {"seed": seed, "budget": Budget(trials=trials), "pruner": Pruner(name="none")}
        recipe = load_recipe("default").model_copy(update=changes)
        studies.create(store, "s", "ann_fashion", space, recipe, "f" * 64)
        study = studies.load_study(store, "s")
        draws: list[float] = []
        with Session(store, study, {}) as session:
            session.cache.whole = whole
            drawn = session.search.draw

            def draw(trial_id: int, number: int) -> TrialConfig:
                start = time.process_time()
                config = drawn(trial_id, number)
                draws.append(1000 * (time.process_time() - start))
                return config

            session.search.draw = draw  # type: ignore[method-assign]
            Loop(session, Formula(4), CheckpointRetention(FolderFiles(Path(folder)), recipe.checkpoints)).run()
            kept = len(session.cache.all_trials())
        with store.read() as connection:
            [best] = queries.best_trials(connection, study.study_id, 1)
            everything = queries.all_trials(connection, study.study_id)
        store.dispose()
    last = [worth(trial.config) for trial in everything[-trials // 4 :]]
    return {
        "seed": seed,
        "whole": whole,
        "best": round(worth(best.config), 5),
        "last_quarter": round(statistics.fmean(last), 5),
        "draw_ms": round(statistics.median(draws[-200:]), 1),
        "kept": kept,
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--trials", type=int, default=4000)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("-o", "--output", type=Path)
    options = arguments.parse_args()
    jobs = [(seed, options.trials, whole) for seed in range(options.seeds) for whole in (True, False)]
    about = {"date": date.today().isoformat(), "processor": platform.processor() or platform.machine()}
    rows = []
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for row in pool.map(searched, jobs):
            rows.append(row)
            print(json.dumps(row), flush=True)
            if options.output:
                report = {**about, "trials": options.trials, "rows": rows}
                options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
