"""The best network after the same time on the same cores: hpo, Optuna in a user's own loop, Ray Tune.

    python -m benchmarks.peers [--seconds 150] [--seeds 5] [--tasks ...] [--sides ...] -o FILE

A side is a process that is stopped after so many seconds, its start included (`benchmarks.peer_sides`); sides take
turns. The best of what was trained to its end is then trained anew on three cuts and seeds, outside the time: its
confirmed mean. Peers are measured without hpo's baselines, and with them ("+ baselines") as their first trials.
Results are appended to FILE, one JSON object a line, and what is there is not measured again. Nothing else may run.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import optuna
import psutil
import torch
from optuna.trial import TrialState

from benchmarks.peer_loops import CPU, TASKS, Reported, space_of
from benchmarks.peer_sides import SIDES
from hpo import data
from hpo.config import Split, TrialConfig
from hpo.suggesters import FixedSuggester
from hpo.training.dataset import resident
from hpo.training.devices import use_one_thread
from hpo.training.engine import Fault
from hpo.training.epoch import Run

WITH_BASELINES = " + baselines"
NAMES = ("hpo", *(name + more for name in SIDES[1:] for more in ("", WITH_BASELINES)))
CUTS = 3


@dataclass(frozen=True)
class Outcome:
    """What a side had reached when it was stopped."""

    trials: int
    """Trainings with at least one epoch."""
    epochs: int
    best: float
    """Highest validation accuracy at the end of a whole training; 0 if there was none."""
    config: TrialConfig | None
    history: list[tuple[float, float]]
    """Seconds since the start and the best value from then on."""


def searched(name: str, task: str, seed: int, seconds: float) -> Outcome:
    """Run a side for so many seconds."""
    side = name.removesuffix(WITH_BASELINES)
    command = [sys.executable, "-m", "benchmarks.peer_sides", side, task, str(seed)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        began = time.time()
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [*command, temporary, *(["--baselines"] if name != side else [])],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "RAY_AIR_NEW_OUTPUT": "0", "RAY_USAGE_STATS_ENABLED": "0"},
            )
        try:
            code = process.wait(seconds)
            raise SystemExit(f"{name} ended by itself, with {code}:\n{(folder / 'log').read_text()[-2000:]}")
        except subprocess.TimeoutExpired:
            stop(process)
        return of_hpo(folder, task, began, seconds) if side == "hpo" else of_reports(folder, task, began, seconds)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for each in family:
        try:
            each.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=30)


def of_hpo(folder: Path, task: str, began: float, seconds: float) -> Outcome:
    """Read hpo's own store, as Optuna sees it."""
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/studies.db")
    trials = [t for t in study.get_trials(deepcopy=False) if t.intermediate_values]
    whole = [
        (t.datetime_complete.replace(tzinfo=UTC).timestamp() - began, t)
        for t in trials
        if t.state == TrialState.COMPLETE and t.datetime_complete is not None
    ]
    in_time = [(at, t) for at, t in whole if at <= seconds]
    best = max((t for _, t in in_time), key=lambda t: float(t.value or 0.0), default=None)
    config = None if best is None else space_of(task).draw(FixedSuggester(best.params), seed=0)
    history = improvements([(at, float(t.value or 0.0)) for at, t in in_time])
    epochs = sum(len(t.intermediate_values) for t in trials)
    return Outcome(len(trials), epochs, float(best.value or 0.0) if best else 0.0, config, history)


def of_reports(folder: Path, task: str, began: float, seconds: float) -> Outcome:
    """Read what the loops of a peer have reported."""
    lines = [
        Reported(**json.loads(line))
        for path in folder.glob("reports-*.jsonl")
        for line in path.read_text().splitlines()
        if line.endswith("}")
    ]
    lines = sorted((line for line in lines if line.time <= began + seconds), key=lambda line: line.time)
    whole = [line for line in lines if line.epoch == line.epochs]
    best = max(whole, key=lambda line: line.value, default=None)
    config = None if best is None else space_of(task).draw(FixedSuggester(best.params), seed=0)
    history = improvements([(line.time - began, line.value) for line in whole])
    return Outcome(len({line.trial for line in lines}), len(lines), best.value if best else 0.0, config, history)


def improvements(ended: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the trainings that were the best when they ended: seconds since the start, value."""
    best, history = 0.0, []
    for at, value in sorted(ended):
        if value > best:
            best = value
            history.append((round(at, 1), value))
    return history


def confirmed(job: tuple[str, TrialConfig, int]) -> float:
    """Return the validation accuracy of a configuration after a training on another cut, with another seed."""
    use_one_thread()
    task, config, number = job
    split = Split(validation=config.split.validation, seed=1000 + number)
    config = replace(config, split=split, seed=1000 + number)
    parts = data.load_parts(data.info(space_of(task).data), split)
    run = Run(config, resident(parts, config, CPU), CPU)
    while not run.finished:
        if isinstance(run.train_epoch(), Fault):
            return 0.0
    return run.evaluate(run.data.validation_x, run.data.validation_y).accuracy


def measured(name: str, task: str, seed: int, seconds: float) -> dict[str, Any]:
    """Run a side, confirm what it found, and return the row that is kept."""
    outcome = searched(name, task, seed, seconds)
    again: list[float] = []
    if outcome.config is not None:
        jobs = [(task, outcome.config, i) for i in range(CUTS)]
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            again = list(pool.map(confirmed, jobs))
    return {
        "task": task,
        "side": name,
        "seed": seed,
        "seconds": seconds,
        "best": outcome.best,
        "confirmed": round(statistics.fmean(again), 5) if again else 0.0,
        "trials": outcome.trials,
        "epochs": outcome.epochs,
        "history": outcome.history,
        "config": outcome.config.summary() if outcome.config else "",
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """Return a table: by task and time, each side's means over the seeds."""
    lines = [f"{'task':12s} {'s':>5s} {'side':32s} seeds    best  confirmed  trials  epochs"]
    for key in dict.fromkeys((r["task"], r["seconds"], r["side"]) for r in rows):
        same = [r for r in rows if (r["task"], r["seconds"], r["side"]) == key]
        best, again, trials, epochs = (
            statistics.fmean(r[name] for r in same) for name in ("best", "confirmed", "trials", "epochs")
        )
        task, seconds, side = key
        lines.append(
            f"{task:12s} {seconds:5.0f} {side:32s} {len(same):5d}  {best:.4f}     {again:.4f}"
            f" {trials:7.0f} {epochs:7.0f}"
        )
    return lines


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=150.0)
    arguments.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    arguments.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    arguments.add_argument("--sides", nargs="+", default=list(NAMES), choices=NAMES)
    arguments.add_argument("-o", "--output", type=Path, required=True)
    options = arguments.parse_args()
    known = [json.loads(line) for line in options.output.read_text().splitlines()] if options.output.exists() else []
    done = {(row["task"], row["side"], row["seed"], row["seconds"]) for row in known}
    for seed in options.seeds:
        for task in options.tasks:
            for name in options.sides:
                if (task, name, seed, options.seconds) in done:
                    continue
                row = measured(name, task, seed, options.seconds)
                known.append(row)
                with options.output.open("a") as output:
                    output.write(json.dumps(row) + "\n")
                print(summary([row])[1], flush=True)
    print("\n".join(summary(known)))


if __name__ == "__main__":
    main()
