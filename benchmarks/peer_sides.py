"""The sides of `benchmarks.peers`, each a process of its own: the same ranges, searched as that tool's users do.

    python -m benchmarks.peer_sides SIDE TASK SEED FOLDER [--baselines]

It searches until it is stopped. Every training of a peer appends one line to FOLDER/reports-PID.jsonl after each epoch,
and hpo keeps its own store in FOLDER. The peers' sides draw from hpo's space (so all have the same ranges) and build
hpo's networks and optimizers.
"""

import argparse
import os
import subprocess
import sys
import time
import zlib
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import optuna

from benchmarks import keel
from benchmarks.peer_loops import LETTER_ROWS, TASKS, Reported, append, space_of, suggest, train
from hpo.suggesters import FixedSuggester
from hpo.training.devices import use_one_thread

SIDES = ("hpo", "optuna", "optuna, DataLoader", "ray")
PROCESSES = 2
"""Trainings at once, one thread each: one for each core."""


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

    def trainable(params: dict[str, Any]) -> None:
        use_one_thread()
        name = tune.get_context().get_trial_id()
        config = searched.draw(FixedSuggester(params), seed=zlib.crc32(str(name).encode()))

        def report(epoch: int, value: float) -> None:
            append(folder, Reported(str(name), epoch, config.epochs, value, params, time.time()))
            tune.report({"accuracy": value, "training_iteration": epoch})

        train(task, config, False, report)

    points = [dict(b.values()) for b in searched.baselines] if baselines else None
    ray.init("local", num_cpus=PROCESSES, include_dashboard=False, object_store_memory=200 * 2**20, log_to_driver=False)
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(
                space=partial(suggest, task),
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
