"""What does a rung see of a training's end? Random draws of several spaces, trained to the end.

    python -m benchmarks.rungs -o FILE [--tasks letter magic ...] [--draws 60] [--average]

After 15 and 45 % of the epochs, values are compared with the end of the same training: values as they stand; values
carried on to the end by the growth that the other trainings of the same schedule had, as the share of the difference
to 1 that is left (`hpo.strategy.growth`), or as a sum. Shown: rank correlations over the better 60 % of the trainings,
and the median error of what is carried on. With `--average` the same for averages of the weights over about half an
epoch.

Results are appended to FILE, one JSON object a line; what is there is not trained again.
"""

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.recipes import TASKS, task
from hpo.config import EMA
from hpo.strategy.growth import Curve, Growth
from hpo.suggesters import RandomSuggester
from hpo.training.devices import use_one_thread
from hpo.training.epoch import Run
from hpo.training.solo import SoloEngine

PHASES = (0.15, 0.45)
BETTER = 0.4
"""Quantile of the final values below which trainings would be dropped by anything."""


def trained(job: tuple[str, int], *, average: bool) -> dict[str, Any]:
    """Train one draw to its end; return its curves, empty if it diverged."""
    use_one_thread()
    name, seed = job
    config = task(name).draw(RandomSuggester(seed), seed)
    if average:
        config = replace(config, average=EMA(0.5))
    engine = SoloEngine(torch.device("cpu"))
    run = Run(config, engine.data(config), engine.device)
    row: dict[str, Any] = {"task": name, "seed": seed, "schedule": config.schedule.name, "plain": []}
    if average:
        row["average"] = []
    for epoch in range(config.epochs):
        _, loss = run.train_only(epoch)
        if not math.isfinite(loss):
            return row | {"plain": []}
        if average:
            row["average"].append(run.evaluate(run.data.validation_x, run.data.validation_y).accuracy)
        kept, run.average = run.average, None
        row["plain"].append(run.evaluate(run.data.validation_x, run.data.validation_y).accuracy)
        run.average = kept
    return row


def as_it_stands(curves: Sequence[Curve], i: int, phase: float) -> float:
    """Return the value of a training at a phase."""
    return curves[i].at(phase)


def by_share(curves: Sequence[Curve], i: int, phase: float) -> float:
    """Return it carried on to the end as hpo does, from the other trainings."""
    left = Growth([*curves[:i], *curves[i + 1 :]]).share_left(curves[i].schedule, phase)
    return 1 - (1 - curves[i].at(phase)) * left


def by_sum(curves: Sequence[Curve], i: int, phase: float) -> float:
    """Return it plus the median gain of the other trainings of the same schedule."""
    others = [curve for j, curve in enumerate(curves) if j != i and curve.schedule == curves[i].schedule]
    return curves[i].at(phase) + float(np.median([curve.at(1.0) - curve.at(phase) for curve in others]))


METHODS: dict[str, Callable[[Sequence[Curve], int, float], float]] = {
    "as it stands": as_it_stands,
    "share that is left": by_share,
    "sum": by_sum,
}


def summary(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return rank correlations and errors as a table, by task, kind of weights and method."""
    lines = []
    for name in sorted({row["task"] for row in rows}):
        whole = [row for row in rows if row["task"] == name and row["plain"]]
        end = np.array([row["plain"][-1] for row in whole])
        better = end >= np.quantile(end, BETTER)
        lines.append(f"{name}: {len(whole)} trainings")
        for kind in ("plain", "average"):
            if any(kind not in row for row in whole):
                continue
            curves = [Curve(row["schedule"], len(row[kind]), np.array(row[kind]), whole=True) for row in whole]
            for method, seen in METHODS.items():
                line = f"  {kind:8s} {method:20s}"
                for phase in PHASES:
                    values = np.array([seen(curves, i, phase) for i in range(len(curves))])
                    rank = spearmanr(values[better], end[better]).statistic
                    error = float(np.median(np.abs(values - end)[better]))
                    line += f"  at {phase:.0%}: rank {rank:.2f}, error {error:.4f}"
                lines.append(line)
    return lines


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tasks", nargs="+", default=TASKS)
    arguments.add_argument("--draws", type=int, default=60)
    arguments.add_argument("--average", action="store_true")
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("-o", "--output", type=Path, required=True)
    options = arguments.parse_args()
    known = [json.loads(line) for line in options.output.read_text().splitlines()] if options.output.exists() else []
    done = {(row["task"], row["seed"]) for row in known}
    jobs = [job for name in options.tasks for seed in range(options.draws) if (job := (name, seed)) not in done]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for row in pool.map(partial(trained, average=options.average), jobs):
            known.append(row)
            with options.output.open("a") as output:
                output.write(json.dumps(row) + "\n")
    print("\n".join(summary(known)))


if __name__ == "__main__":
    main()
