"""The packed engine against the solo engine, all in one run: how fast, how equal, how good.

    python -m benchmarks.packing [--repeats 3] [--device auto] [--only speed,loops,...] [-o FILE] [--figure]

speed      The same trials by the solo engine, the packed one and `auto`, through the engine's contract: admitted as
           there is room, evicted as they end. The sides take turns; trials per hour are those of the median time:
           on a CPU that of the process, so that what else the machine does counts for little.
loops      The same trials by the loop that people write - a DataLoader, autograd, torch.optim, one trial after
           another - by the solo engine, by a solo engine in each of several processes, and packed. On a GPU the
           trials are drawn from the space ann_fashion.
refill     Trials that end as under successive halving: places refilled as they fall free, and static batches whose
           places stay taken until the last has ended. And what it takes to start a trial in a warm lane.
agreement  24 paired trainings on real Fashion-MNIST rows in fp32: rank correlation of the final validation
           accuracies, and their mean difference beside its standard error.
study      A study of 100 trials with TPE and pruning, by the loop and a store, with each engine.

One CPU thread. What is claimed for CUDA is measured only where there is a GPU; the report says what was not.
"""

import argparse
import json
import math
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from scipy.stats import spearmanr

from benchmarks.packing_cases import CASES, Case, configs, drawn_from
from benchmarks.packing_figure import FIGURE, draw
from benchmarks.packing_sides import (
    ms_to_start_in_a_warm_lane,
    seconds_by_hand,
    seconds_of_processes,
    train_all,
    train_in_static_batches,
)
from hpo import data, documents
from hpo.artifacts import FolderFiles
from hpo.config import TrialConfig
from hpo.recipe import Budget, EngineName, Pruner, Sampler, StudyRecipe
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.loop import Loop
from hpo.runner.session import Session
from hpo.runner.worker import make_engine
from hpo.space import SearchSpace
from hpo.store import studies
from hpo.store.database.connect import open_store
from hpo.store.database.url import parse
from hpo.training.devices import choose_device, describe, use_one_thread
from hpo.training.packed.engine import PackedEngine

ENGINES: tuple[EngineName, ...] = get_args(EngineName)
NEVER_BELOW = 0.95
"""What `auto` may lose to the solo engine: its measurement, and chance."""


def measure_speed(device: str, repeats: int, count: int = 16) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for name, case in CASES.items():
        trials = configs(case, count, seed=0)
        engines = {kind: make_engine(kind, device) for kind in ENGINES}
        times: dict[str, list[float]] = {kind: [] for kind in ENGINES}
        clock = time.process_time if choose_device(device).type == "cpu" else time.perf_counter
        for turn in range(repeats + 1):
            for kind, engine in engines.items():
                start = clock()
                train_all(engine, trials)
                if turn:  # the first is for data, caches and what auto measures
                    times[kind].append(clock() - start)
        hourly = {kind: round(3600 * count / statistics.median(found)) for kind, found in times.items()}
        ratios = {f"{kind}/solo": round(hourly[kind] / hourly["solo"], 2) for kind in ("packed", "auto")}
        report[name] = {"trials_per_hour": hourly, **ratios}
        print(f"{name}: " + ", ".join(f"{kind} {value:,}/h" for kind, value in hourly.items()), flush=True)
        if case.promised is not None and choose_device(device).type == "cpu":
            tell("packed/solo", ratios["packed/solo"], case.promised)
        tell("auto/solo", ratios["auto/solo"], NEVER_BELOW)
    return report


def tell(what: str, got: float, promised: float) -> None:
    print(f"  {what}: {got:.2f}x (promised >= {promised}x){'' if got >= promised else '  MISSED'}", flush=True)


SMALL_MLPS, SMALL_CNNS = "Fashion-MNIST, hidden 16-64, batch 16-32", "digits, CNN of 4-16 channels, batch 16-32"
FASHION_CNNS = Case("fashion_mnist", (), (2,), (32, 64), 0.1, 3, None, (16, 32, 64))
ON_A_GPU = {"trials of ann_fashion": {"by hand": 30.0, "solo": 5.0, "processes": 2.0}, "small CNNs": {"by hand": 6.0}}
"""What packed trials per hour shall be of the others'; the CNNs have at most 0.2 million weights."""


def measure_loops(device: str, repeats: int, count: int, processes: int) -> dict[str, Any]:
    if choose_device(device).type == "cuda":
        sets = {"trials of ann_fashion": drawn_from("ann_fashion", count), "small CNNs": configs(FASHION_CNNS, 64, 2)}
    else:
        sets = {name: configs(CASES[name], 16, seed=2) for name in (SMALL_MLPS, SMALL_CNNS)}
    return {name: compare_loops(name, trials, device, repeats, processes) for name, trials in sets.items()}


def compare_loops(name: str, trials: list[TrialConfig], device: str, repeats: int, processes: int) -> dict[str, Any]:
    chosen = choose_device(device)
    few = trials if len(trials) < 20 else trials[:: len(trials) // 10]  # the loop by hand is timed on ten or so
    sides: dict[str, tuple[int, Callable[[], float]]] = {
        "by hand": (len(few), lambda: seconds_by_hand(few, chosen)),
        "processes": (len(trials), lambda: seconds_of_processes(trials, device, processes)),
    }
    for kind in ENGINES:
        engine = make_engine(kind, device)
        train_all(engine, [replace(config, epochs=1) for config in trials])  # data, caches, what auto measures
        sides[kind] = (len(trials), partial(_timed, lambda engine=engine: train_all(engine, trials)))  # type: ignore[misc]
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, (_, seconds) in sides.items():
            times[side].append(seconds())
    hourly = {side: round(3600 * sides[side][0] / statistics.median(found)) for side, found in times.items()}
    packed = max(hourly["packed"], hourly["auto"])
    ratios = {f"packed/{side}": round(packed / hourly[side], 2) for side in ("by hand", "solo", "processes")}
    print(f"loops, {name}: " + ", ".join(f"{side} {value:,}/h" for side, value in hourly.items()), flush=True)
    print("  " + ", ".join(f"{what} {ratio:.2f}x" for what, ratio in ratios.items()), flush=True)
    for side, required in ON_A_GPU.get(name, {}).items():
        tell(f"packed/{side}", ratios[f"packed/{side}"], required)
    return {"processes": processes, "trials_per_hour": hourly, **ratios}


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure_refill(device: str, repeats: int) -> dict[str, Any]:
    case = CASES["Fashion-MNIST, hidden 16-64, batch 16-32"]
    chance, engine = random.Random(3), make_engine("packed", device)
    assert isinstance(engine, PackedEngine)
    count = 4 * engine.slots
    trials = [  # a third goes on at each rung: 3, 9 and 27 epochs
        replace(config, epochs=chance.choices((3, 9, 27), (6, 2, 1))[0], batch_size=32, data_fraction=0.02)
        for config in configs(case, count, seed=3)
    ]
    times: dict[str, list[float]] = {"refilled": [], "static": []}
    for _ in range(repeats):
        times["refilled"].append(_timed(lambda: train_all(engine, trials)))
        times["static"].append(_timed(lambda: train_in_static_batches(engine, trials, engine.slots)))
    ratio = round(statistics.median(times["static"]) / statistics.median(times["refilled"]), 2)
    print(f"refill: {count} trials in {engine.slots} places")
    tell("refilled/static", ratio, 1.5)
    milliseconds = round(ms_to_start_in_a_warm_lane(configs(case, engine.slots, seed=4), device), 1)
    print(
        f"  a trial's start in a warm lane: {milliseconds} ms (promised < 50){'' if milliseconds < 50 else '  MISSED'}"
    )
    return {"slots": engine.slots, "trials": count, "refilled/static": ratio, "start_in_warm_lane_ms": milliseconds}


def measure_agreement(device: str) -> dict[str, Any]:
    case = Case("fashion_mnist", (16, 32, 48, 64, 96, 128), (1, 2, 3), (32, 64), 0.3, 3, None)
    chance = random.Random(1)
    pairs = []
    for config in configs(case, 24, seed=1):  # rates from useless to good: ranks shall have something to rank
        pairs.append(replace(config, optimizer=replace(config.optimizer, lr=10 ** chance.uniform(-4.5, -1.5))))
    finals = {kind: train_all(make_engine(kind, device), pairs) for kind in ("solo", "packed")}
    solo, packed = ([finals[k][i].validation_accuracy for i in range(24)] for k in ("solo", "packed"))
    differences = [a - b for a, b in zip(packed, solo, strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    # What the same training differs by between two seeds would be far more: this is rounding alone.
    rank = float(spearmanr(solo, packed).statistic)
    mean = statistics.mean(differences)
    print(f"agreement: Spearman {rank:.4f} (promised >= 0.97){'' if rank >= 0.97 else '  MISSED'}")
    fine = abs(mean) <= max(error, 1e-12)
    print(f"  mean difference {100 * mean:+.3f} points, standard error {100 * error:.3f}{'' if fine else '  MISSED'}")
    return {
        "spearman": round(rank, 4),
        "mean_difference": mean,
        "standard_error": error,
        "solo": solo,
        "packed": packed,
    }


STUDY_SPACE = {
    "data": "fashion_mnist",
    "split": {"validation": 10000},
    "data_fraction": 0.2,
    "epochs": 9,
    "batch_size": {"choices": [16, 32]},
    "mlp": {
        "depth": {"low": 1, "high": 3},
        "width": {"low": 16, "high": 64, "step": 16},
        "dropout": {"low": 0.0, "high": 0.3, "step": 0.1, "shared": True},
        "activation": {"choices": ["relu", "gelu", "tanh"]},
        "norm": {"choices": ["none", "batch"]},
    },
    "optimizer": {
        "name": {"choices": ["sgd_momentum", "adam", "adamw", "rmsprop"]},
        "lr": {"low": 1e-4, "high": 1e-1, "log": True},
        "weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
    },
    "schedule": {"name": {"choices": ["none", "cosine"]}},
}


def measure_study(device: str, trials: int) -> dict[str, Any]:
    space = SearchSpace.model_validate_json(json.dumps(STUDY_SPACE))
    fingerprint = data.fingerprint(data.info(space.data), space.split)
    recipe = StudyRecipe(
        budget=Budget(trials=trials),
        sampler=Sampler(startup_trials=20),
        pruner=Pruner(min_epochs=3, reduction=3),
    )
    report: dict[str, Any] = {"space": documents.dump(space), "trials": trials}
    for kind in ("solo", "packed"):
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(parse(f"sqlite:///{folder}/studies.db"), create=True)
            studies.create(store, kind, kind, space, recipe, fingerprint)
            study = studies.load_study(store, kind)
            engine = make_engine(kind, device)
            with Session(store, study, {"device": device}) as session:
                loop = Loop(session, engine, CheckpointRetention(FolderFiles(Path(folder)), recipe.checkpoints))
                start = time.perf_counter()
                loop.run()
                wall = time.perf_counter() - start
                best = session.ranking.best_value()
            store.dispose()
        report[kind] = {
            "seconds": round(wall, 1),
            "trials_per_hour": round(3600 * trials / wall),
            "best": best,
            "outside_training": round(1 - loop.clock.seconds / wall, 4),
            **engine.status(),
        }
        print(f"study, {kind}: {report[kind]}", flush=True)
    gap = report["packed"]["best"] - report["solo"]["best"]
    print(f"  best accuracy {100 * gap:+.2f} points (promised >= -0.2){'' if gap >= -0.002 else '  MISSED'}")
    tell("packed/solo trials per hour", report["solo"]["seconds"] / report["packed"]["seconds"], 1.5)
    return report


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "speed": lambda options: measure_speed(options.device, options.repeats),
    "loops": lambda options: measure_loops(options.device, options.repeats, options.draws, options.processes),
    "refill": lambda options: measure_refill(options.device, options.repeats),
    "agreement": lambda options: measure_agreement(options.device),
    "study": lambda options: measure_study(options.device, options.trials),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--trials", type=int, default=100, help="of the study")
    arguments.add_argument("--draws", type=int, default=200, help="from ann_fashion, on a GPU")
    arguments.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="to compare with")
    arguments.add_argument("--device", default="auto")
    arguments.add_argument("--only", default=",".join(PARTS))
    arguments.add_argument("-o", "--output", type=Path)
    arguments.add_argument("--figure", action="store_true", help=f"draw {FIGURE.name}")
    options = arguments.parse_args()
    use_one_thread()
    data.fetch(data.info("fashion_mnist"))
    device = choose_device(options.device)
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "device": describe(device),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "repeats": options.repeats,
    }
    for part in options.only.split(","):
        report[part] = PARTS[part](options)
    if device.type != "cuda":
        report["not_measured"] = "everything on CUDA: no GPU here"
        print("not measured: what the packed engine does on CUDA, for want of a GPU")
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")
    if options.figure and "speed" in report:
        draw(report, FIGURE)


if __name__ == "__main__":
    main()
