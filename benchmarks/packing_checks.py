"""Parts of `benchmarks.packing` that compare results or whole studies: refill, agreement, study."""

import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from benchmarks.packing_cases import CASES, Case, configs
from benchmarks.packing_sides import (
    ms_to_start_in_a_lane_at_work,
    seconds_of,
    tell,
    train_all,
    train_in_static_batches,
)
from hpo import data, documents
from hpo.artifacts import FolderFiles
from hpo.recipe import Budget, EngineName, Pruner, Sampler, StudyRecipe
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.loop import Loop
from hpo.runner.session import Session
from hpo.runner.worker import make_engine
from hpo.space import SearchSpace
from hpo.store import studies
from hpo.store.database.connect import open_store
from hpo.store.database.url import parse
from hpo.training.packed.scheduling.engine import PackedEngine


def measure_refill(device: str, repeats: int, epochs: Sequence[int] = (3, 9, 27)) -> dict[str, Any]:
    """Compare places that are refilled with static batches: a third of the trials goes on at each rung, of `epochs`."""
    case = CASES["Fashion-MNIST, hidden 16-64, batch 16-32"]
    chance, engine = random.Random(3), make_engine("packed", device)
    assert isinstance(engine, PackedEngine)
    count = 4 * engine.slots
    trials = [
        replace(config, epochs=chance.choices(epochs, (6, 2, 1))[0], batch_size=32, data_fraction=0.02)
        for config in configs(case, count, seed=3)
    ]
    train_all(engine, [replace(config, epochs=1) for config in trials[: engine.slots]])  # data, graphs, caches
    times: dict[str, list[float]] = {"refilled": [], "static": []}
    for _ in range(repeats):
        times["refilled"].append(seconds_of(lambda: train_all(engine, trials)))
        times["static"].append(seconds_of(lambda: train_in_static_batches(engine, trials, engine.slots)))
    ratio = round(statistics.median(times["static"]) / statistics.median(times["refilled"]), 2)
    print(f"refill: {count} trials in {engine.slots} places")
    tell("refilled/static", ratio, 1.5)
    start = ms_to_start_in_a_lane_at_work(trials[0], device)
    print(
        f"  a start in a lane of {start.slots} at work: {start.milliseconds} ms (promised < 50)"
        f"{'' if start.milliseconds < 50 else '  MISSED'}"
    )
    return {
        "slots": engine.slots,
        "trials": count,
        "refilled/static": ratio,
        "start_in_warm_lane_ms": start.milliseconds,
        "lane": start.slots,
        "lane_epoch_ms": start.epoch_milliseconds,
    }


def measure_agreement(device: str, count: int = 24, rows: float = 0.3) -> dict[str, Any]:
    """Compare the final accuracies of trials that are trained packed and solo, on a part of the rows."""
    case = Case("fashion_mnist", (16, 32, 48, 64, 96, 128), (1, 2, 3), (32, 64), rows, 3, None)
    chance = random.Random(1)
    pairs = []
    for config in configs(case, count, seed=1):  # rates from useless to good: ranks shall have something to rank
        pairs.append(replace(config, optimizer=replace(config.optimizer, lr=10 ** chance.uniform(-4.5, -1.5))))
    finals = {kind: train_all(make_engine(kind, device), pairs) for kind in ("solo", "packed")}
    solo, packed = ([finals[k][i].validation_accuracy for i in range(count)] for k in ("solo", "packed"))
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


def measure_study(device: str, trials: int, kinds: Sequence[EngineName] = ("solo", "packed")) -> dict[str, Any]:
    """Compare whole studies with pruning, each with another engine."""
    space = SearchSpace.model_validate_json(json.dumps(STUDY_SPACE))
    fingerprint = data.fingerprint(data.info(space.data), space.split)
    recipe = StudyRecipe(
        budget=Budget(trials=trials),
        sampler=Sampler(startup_trials=20),
        pruner=Pruner(min_epochs=3, reduction=3),
    )
    report: dict[str, Any] = {"space": documents.dump(space), "trials": trials}
    for kind in kinds:
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
    if not {"solo", "packed"} <= report.keys():
        return report
    gap = report["packed"]["best"] - report["solo"]["best"]
    print(f"  best accuracy {100 * gap:+.2f} points (promised >= -0.2){'' if gap >= -0.002 else '  MISSED'}")
    tell("packed/solo trials per hour", report["solo"]["seconds"] / report["packed"]["seconds"], 1.5)
    return report
