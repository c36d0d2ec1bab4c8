"""The packed engine against the solo engine, all in one run: how fast, how equal, how good.

    python benchmarks/packing.py [--repeats 3] [--device auto] [--only speed,agreement,study] [-o FILE] [--figure]

speed      The same trials by the solo engine, the packed one and `auto`, through the engine's contract: admitted as
           there is room, evicted as they end. The sides take turns; trials per hour are those of the median time:
           on a CPU that of the process, so that what else the machine does counts for little.
agreement  24 paired trainings on real Fashion-MNIST rows in fp32: rank correlation of the final validation
           accuracies, and their mean difference beside its standard error.
study      A study of 100 trials with TPE and pruning, by the loop and a store, with each engine.

One CPU thread. What is claimed for CUDA is measured only where there is a GPU; the report says what was not.
"""

import argparse
import json
import math
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, get_args

import torch
from scipy.stats import spearmanr

from hpo import data, documents
from hpo.config import MLP, SGD, Adam, AdamW, OneCycle, RMSprop, SGDMomentum, Split, TrialConfig
from hpo.recipe import Budget, Engine, Pruner, Sampler, StudyRecipe
from hpo.runner.artifacts import Folder
from hpo.runner.keeping import Keeper
from hpo.runner.loop import Loop
from hpo.runner.worker import make_engine
from hpo.space import SearchSpace
from hpo.store import study as studies
from hpo.store.connect import open_store
from hpo.store.session import Session
from hpo.store.url import parse
from hpo.training import contract
from hpo.training.contract import EpochResult
from hpo.training.devices import choose_device, describe

ENGINES: tuple[Engine, ...] = get_args(Engine)
FIGURE = Path(__file__).parent.parent / "docs" / "pictures" / "packing.svg"
DIGITS, FASHION = Split(0.25), Split(2000)


@dataclass(frozen=True)
class Case:
    """Trials to be trained by each engine."""

    data: str
    widths: tuple[int, ...]
    """Of a hidden layer, drawn from."""
    depths: tuple[int, ...]
    batches: tuple[int, ...]
    rows: float
    """Part of the training rows."""
    epochs: int
    promised: float | None
    """Packed over solo on a CPU; None where `auto` need only not lose."""


CASES = {
    "digits, hidden 16-64, batch 16-32": Case("digits", (16, 32, 48, 64), (1, 2, 3), (16, 32), 1.0, 5, 1.5),
    "Fashion-MNIST, hidden 16-64, batch 16-32": Case(
        "fashion_mnist", (16, 32, 48, 64), (1, 2, 3), (16, 32), 0.1, 2, 1.5
    ),
    "Fashion-MNIST, hidden 64-128, batch 64": Case("fashion_mnist", (64, 96, 128), (1, 2), (64,), 0.15, 2, None),
    "Fashion-MNIST, hidden 128-256, batch 128": Case("fashion_mnist", (128, 192, 256), (2,), (128,), 0.15, 2, None),
    "Fashion-MNIST, hidden 256-512, batch 256": Case("fashion_mnist", (256, 512), (2,), (256,), 0.15, 2, None),
}
NEVER_BELOW = 0.95
"""What `auto` may lose to the solo engine: its measurement, and chance."""
MIXED = (SGD(0.05), SGDMomentum(0.02, 1e-4, 0.9, True), Adam(1e-3), AdamW(2e-3, 1e-2), RMSprop(5e-4))


def configs(case: Case, count: int, seed: int) -> list[TrialConfig]:
    """Return trials that differ in all that may differ within a lane."""
    chance, found = random.Random(seed), []
    for number in range(count):
        depth = chance.choice(case.depths)
        model = MLP(
            tuple(chance.choice(case.widths) for _ in range(depth)),
            (chance.choice((0.0, 0.2)),) * depth,
            chance.choice(("relu", "gelu", "tanh")),  # type: ignore[arg-type]
            chance.choice(("none", "batch")),  # type: ignore[arg-type]
        )
        found.append(
            TrialConfig(
                case.data,
                model,
                MIXED[number % len(MIXED)],
                chance.choice(case.batches),
                case.epochs,
                seed=number,
                schedule=OneCycle(),
                split=DIGITS if case.data == "digits" else FASHION,
                data_fraction=case.rows,
            )
        )
    return found


def train_all(engine: contract.Engine, trials: list[TrialConfig]) -> dict[int, EpochResult]:
    """Train trials as a runner would, without a store; return the last epoch of each."""
    waiting, final = list(enumerate(trials)), {}
    while len(final) < len(trials):
        for _ in range(min(engine.room(), len(waiting))):
            key, config = waiting.pop(0)
            engine.admit(key, config)
        for key, outcome in engine.step().items():
            if not isinstance(outcome, EpochResult):
                raise RuntimeError(f"trial {key}: {outcome}")
            if outcome.last:
                final[key] = outcome
                engine.evict(key)
    return final


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


def measure_agreement(device: str) -> dict[str, Any]:
    case = Case("fashion_mnist", (16, 32, 48, 64, 96, 128), (1, 2, 3), (32, 64), 0.3, 3, None)
    chance = random.Random(1)
    pairs = []
    for config in configs(case, 24, seed=1):  # rates from useless to good: ranks shall have something to rank
        pairs.append(replace(config, optimizer=replace(config.optimizer, lr=10 ** chance.uniform(-4.5, -1.5))))
    finals = {kind: train_all(make_engine(kind, device), pairs) for kind in ("solo", "packed")}  # type: ignore[arg-type]
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
            study = studies.load(store, kind)
            engine = make_engine(kind, device)  # type: ignore[arg-type]
            with Session(store, study, {"device": device}) as session:
                loop = Loop(session, engine, Keeper(Folder(Path(folder)), recipe.checkpoints))
                start = time.perf_counter()
                loop.run()
                wall = time.perf_counter() - start
                best = session.best_value()
            store.dispose()
        report[kind] = {
            "seconds": round(wall, 1),
            "trials_per_hour": round(3600 * trials / wall),
            "best": best,
            "outside_training": round(1 - loop.training_seconds / wall, 4),
            **engine.status(),
        }
        print(f"study, {kind}: {report[kind]}", flush=True)
    gap = report["packed"]["best"] - report["solo"]["best"]
    print(f"  best accuracy {100 * gap:+.2f} points (promised >= -0.2){'' if gap >= -0.002 else '  MISSED'}")
    tell("packed/solo trials per hour", report["solo"]["seconds"] / report["packed"]["seconds"], 1.5)
    return report


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw trials per hour of each engine, relative to the solo engine's."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    speed = report["speed"]
    figure, axes = pyplot.subplots(figsize=(8, 0.6 * len(speed) + 1.2))
    for number, found in enumerate(speed.values()):
        for offset, kind, color in ((-0.18, "packed", "#4c78a8"), (0.18, "auto", "#f58518")):
            ratio = found[f"{kind}/solo"]
            axes.barh(number + offset, ratio, 0.34, color=color, label=kind if number == 0 else None)
            axes.text(ratio, number + offset, f" {ratio:.1f}x", va="center", fontsize=8)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(speed)), list(speed), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(f"trials per hour, in those of the solo engine ({report['device']}, one process)")
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "speed": lambda options: measure_speed(options.device, options.repeats),
    "agreement": lambda options: measure_agreement(options.device),
    "study": lambda options: measure_study(options.device, options.trials),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--trials", type=int, default=100, help="of the study")
    arguments.add_argument("--device", default="auto")
    arguments.add_argument("--only", default=",".join(PARTS))
    arguments.add_argument("-o", "--output", type=Path)
    arguments.add_argument("--figure", action="store_true", help=f"draw {FIGURE.name}")
    options = arguments.parse_args()
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
