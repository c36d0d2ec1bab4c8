"""The packed engine against the solo engine, all in one run: how fast, how equal, how good.

    python -m benchmarks.packing [--minutes 10] [--only speed,loops,...] [--sets TEXT,...] [--sides solo,packed,...]
                                 [--repeats 3] [--device auto] [-o FILE] [--figure]

speed      The same trials by the solo engine, the packed one and `auto`, through the engine's contract: admitted as
           there is room, evicted as they end. The sides take turns; trials per hour are those of the median time:
           on a CPU that of the process, so that what else the machine does counts for little.
loops      The same trials by the loop that people write - a DataLoader, autograd, torch.optim, one trial after
           another - by the solo engine, by a solo engine in each of several processes, and packed. On a GPU the
           trials are drawn from the space ann_fashion.
refill     Trials that end as under successive halving: places refilled as they fall free, and static batches whose
           places stay taken until the last has ended. And what it takes to start a trial in a full lane at work.
agreement  24 paired trainings on real Fashion-MNIST rows in fp32: rank correlation of the final validation
           accuracies, and their mean difference beside its standard error.
study      A study of 100 trials with TPE and pruning, by the loop and a store, with each engine.

`--sets` are those sets of speed and loops whose name contains one of the texts. Parts and sets share the minutes: turns
are left out first; at the end of the time the report is written with what is complete.

One CPU thread. What is claimed for CUDA is measured only where there is a GPU; the report says what was not.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks.packing_cases import CASES, Case, configs, drawn_from
from benchmarks.packing_checks import measure_agreement, measure_refill, measure_study
from benchmarks.packing_figure import FIGURE, draw
from benchmarks.packing_sides import seconds_by_hand, seconds_of, seconds_of_processes, tell, train_all
from hpo import data
from hpo.config import TrialConfig
from hpo.recipe import EngineName
from hpo.runner.worker import make_engine
from hpo.training.devices import choose_device, describe, use_one_thread

ENGINES: tuple[EngineName, ...] = get_args(EngineName)
SIDES = ("by hand", "processes", *ENGINES)
NEVER_BELOW = 0.95
"""What `auto` may lose to the solo engine: its measurement, and chance."""


class TimeIsUp(BaseException):
    """The minutes are over."""


@dataclass(frozen=True)
class Run:
    """What is measured, and until when."""

    options: argparse.Namespace
    deadline: float
    """By the monotonic clock."""

    def share(self, parts: int) -> "Run":
        """Return the same with one of so many equal shares of the time that is left."""
        now = time.monotonic()
        return replace(self, deadline=now + max(0.0, self.deadline - now) / parts)

    def wants(self, side: str) -> bool:
        """Return whether a side is measured."""
        return side in self.options.sides.split(",")

    def turns(self, sides: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
        """Return the seconds of each side, which take turns: all repeats, or as many as there is time for, but one."""
        times: dict[str, list[float]] = {side: [] for side in sides}
        for turn in range(self.options.repeats):
            began = time.monotonic()
            for side, seconds in sides.items():
                times[side].append(seconds())
            if turn + 1 < self.options.repeats and 2 * time.monotonic() - began > self.deadline:
                print(f"  {turn + 1} of {self.options.repeats} turns, for want of time", flush=True)
                break
        return times


def measure_speed(run: Run, report: dict[str, Any], count: int = 16) -> None:
    kinds = [kind for kind in ENGINES if run.wants(kind)]
    device = run.options.device
    sets = chosen(run, {name: partial(configs, case, count, seed=0) for name, case in CASES.items()})
    for place, (name, trials) in enumerate(sets.items()):
        engines = {kind: make_engine(kind, device) for kind in kinds}
        on_cpu = choose_device(device).type == "cpu"
        sides: dict[str, Callable[[], float]] = {}
        for kind, engine in engines.items():
            action = partial(train_all, engine, trials())
            action()  # data, caches and what auto measures
            sides[kind] = partial(cpu_seconds_of if on_cpu else seconds_of, action)
        times = run.share(len(sets) - place).turns(sides)
        hourly = {kind: round(3600 * count / statistics.median(found)) for kind, found in times.items()}
        ratios = {f"{k}/solo": round(hourly[k] / hourly["solo"], 2) for k in hourly if k != "solo" and "solo" in hourly}
        report[name] = {"trials_per_hour": hourly, **ratios}
        print(f"{name}: " + ", ".join(f"{kind} {value:,}/h" for kind, value in hourly.items()), flush=True)
        if (promised := CASES[name].promised) is not None and on_cpu and "packed/solo" in ratios:
            tell("packed/solo", ratios["packed/solo"], promised)
        if "auto/solo" in ratios:
            tell("auto/solo", ratios["auto/solo"], NEVER_BELOW)


def chosen(run: Run, sets: Mapping[str, Callable[[], list[TrialConfig]]]) -> dict[str, Callable[[], list[TrialConfig]]]:
    """Return the sets whose name contains one of the texts that were asked for."""
    return {name: make for name, make in sets.items() if any(text in name for text in run.options.sets.split(","))}


def cpu_seconds_of(action: Callable[[], object]) -> float:
    """Return the seconds that this process computes for an action."""
    start = time.process_time()
    action()
    return time.process_time() - start


SMALL_MLPS, SMALL_CNNS = "Fashion-MNIST, hidden 16-64, batch 16-32", "digits, CNN of 4-16 channels, batch 16-32"
FASHION_CNNS = Case("fashion_mnist", (), (2,), (32, 64), 0.1, 3, None, (16, 32, 64))
ON_A_GPU = {"trials of ann_fashion": {"by hand": 30.0, "solo": 5.0, "processes": 2.0}, "small CNNs": {"by hand": 6.0}}
"""What packed trials per hour shall be of the others'; the CNNs have at most 0.2 million weights."""


def measure_loops(run: Run, report: dict[str, Any]) -> None:
    if choose_device(run.options.device).type == "cuda":
        sets: dict[str, Callable[[], list[TrialConfig]]] = {
            "trials of ann_fashion": partial(drawn_from, "ann_fashion", run.options.draws),
            "small CNNs": partial(configs, FASHION_CNNS, 64, 2),
        }
    else:
        sets = {name: partial(configs, CASES[name], 16, seed=2) for name in (SMALL_MLPS, SMALL_CNNS)}
    sets = chosen(run, sets)
    for place, (name, trials) in enumerate(sets.items()):
        report[name] = compare_loops(run.share(len(sets) - place), name, trials())


def compare_loops(run: Run, name: str, trials: list[TrialConfig]) -> dict[str, Any]:
    options = run.options
    few = trials if len(trials) < 20 else trials[:: len(trials) // 10]  # the loop by hand is timed on ten or so
    sides: dict[str, Callable[[], float]] = {
        "by hand": lambda: seconds_by_hand(few, choose_device(options.device)),
        "processes": lambda: seconds_of_processes(trials, options.device, options.processes),
    }
    sides = {side: seconds for side, seconds in sides.items() if run.wants(side)}
    for kind in filter(run.wants, ENGINES):
        engine = make_engine(kind, options.device)
        train_all(engine, [replace(config, epochs=1) for config in trials])  # data, caches, what auto measures
        sides[kind] = partial(seconds_of, partial(train_all, engine, trials))
    times = run.turns(sides)
    counts = {"by hand": len(few)}
    hourly = {
        side: round(3600 * counts.get(side, len(trials)) / statistics.median(found)) for side, found in times.items()
    }
    packed = max(hourly.get("packed", 0), hourly.get("auto", 0))
    ratios = {f"packed/{side}": round(packed / hourly[side], 2) for side in SIDES[:3] if side in hourly and packed}
    print(f"loops, {name}: " + ", ".join(f"{side} {value:,}/h" for side, value in hourly.items()), flush=True)
    print("  " + ", ".join(f"{what} {ratio:.2f}x" for what, ratio in ratios.items()), flush=True)
    for side, required in ON_A_GPU.get(name, {}).items():
        if f"packed/{side}" in ratios:
            tell(f"packed/{side}", ratios[f"packed/{side}"], required)
    return {"processes": options.processes, "trials_per_hour": hourly, **ratios}


PARTS: dict[str, Callable[[Run, dict[str, Any]], None]] = {
    "speed": measure_speed,
    "loops": measure_loops,
    "refill": lambda run, report: report.update(measure_refill(run.options.device, run.options.repeats)),
    "agreement": lambda run, report: report.update(measure_agreement(run.options.device)),
    "study": lambda run, report: report.update(
        measure_study(run.options.device, run.options.trials, [k for k in ("solo", "packed") if run.wants(k)])
    ),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--trials", type=int, default=100, help="of the study")
    arguments.add_argument("--draws", type=int, default=200, help="from ann_fashion, on a GPU")
    arguments.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="to compare with")
    arguments.add_argument("--device", default="auto")
    arguments.add_argument("--only", default=",".join(PARTS), help="parts")
    arguments.add_argument("--sets", default="", help="texts that a set's name contains one of")
    arguments.add_argument("--sides", default=",".join(SIDES))
    arguments.add_argument("-o", "--output", type=Path)
    arguments.add_argument("--figure", action="store_true", help=f"draw {FIGURE.name}")
    options = arguments.parse_args()
    if unknown := {*options.sides.split(",")} - {*SIDES} | {*options.only.split(",")} - {*PARTS}:
        raise SystemExit(f"unknown: {', '.join(unknown)}. Parts: {', '.join(PARTS)}. Sides: {', '.join(SIDES)}.")
    use_one_thread()
    run = Run(options, time.monotonic() + 60 * options.minutes)

    def end(number: int, frame: object) -> None:
        raise TimeIsUp

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 60 * options.minutes)
    data.fetch(data.info("fashion_mnist"))
    device = choose_device(options.device)
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "device": describe(device),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "repeats": options.repeats,
    }
    parts = [part for part in PARTS if part in options.only.split(",")]
    for place, part in enumerate(parts):
        try:
            PARTS[part](run.share(len(parts) - place), report.setdefault(part, {}))
        except TimeIsUp:
            report["time_was_up_in"] = part
            print(f"the time is up: {part} is not complete, after it nothing was measured")
            break
    signal.setitimer(signal.ITIMER_REAL, 0)
    if device.type != "cuda":
        report["not_measured"] = "everything on CUDA: no GPU here"
        print("not measured: what the packed engine does on CUDA, for want of a GPU")
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")
    if options.figure and "speed" in report:
        draw(report, FIGURE)


if __name__ == "__main__":
    main()
