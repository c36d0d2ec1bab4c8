"""What does a rung see of a training's end? Rank correlations over random draws of ann_fashion, trained to the end.

    python -m benchmarks.rungs -o FILE [--draws 40] [--processes 2]

After each epoch the validation accuracy is taken of the weights as they are, and of their average over about half an
epoch. Compared with the end of the same training, over the trainings that end above 0.85: values as they stand; values
plus the growth that the other trainings of the same schedule had (`hpo.strategy.growth`); the same of the averages.

Results are appended to FILE, one JSON object a line; what is there is not measured again.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from hpo import space
from hpo.config import EMA
from hpo.strategy.growth import Curve, Growth
from hpo.suggesters import RandomSuggester
from hpo.training.devices import use_one_thread
from hpo.training.epoch import Run
from hpo.training.solo import SoloEngine

RUNGS = (3, 9)
GOOD = 0.85
"""Trainings that end below would be dropped by anything."""


def trained(seed: int) -> dict[str, Any]:
    """Train one draw to its end; return its curves, empty if it diverged."""
    use_one_thread()
    config = replace(space.load_space("ann_fashion").draw(RandomSuggester(seed), seed), average=EMA(0.5))
    engine = SoloEngine(torch.device("cpu"))
    run = Run(config, engine.data(config), engine.device)
    row: dict[str, Any] = {"seed": seed, "schedule": config.schedule.name, "plain": [], "average": []}
    for epoch in range(config.epochs):
        _, loss = run.train_only(epoch)
        if not math.isfinite(loss):
            return row | {"plain": [], "average": []}
        row["average"].append(run.evaluate(run.data.validation_x, run.data.validation_y).accuracy)
        average, run.average = run.average, None
        row["plain"].append(run.evaluate(run.data.validation_x, run.data.validation_y).accuracy)
        run.average = average
    return row


def seen(rows: Sequence[Mapping[str, Any]], kind: str, rung: int, *, grown: bool) -> list[float]:
    """Return what a rung sees of each training: its value then, or that plus the growth of the others to the end."""
    curves = [Curve(row["schedule"], len(row[kind]), np.array(row[kind]), whole=True) for row in rows]
    if not grown:
        return [float(curve.values[rung - 1]) for curve in curves]
    return [Growth(curves[:i] + curves[i + 1 :]).projected(curve, rung) for i, curve in enumerate(curves)]


def summary(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the correlations as a table, over all and by schedule."""
    good = [row for row in rows if row["plain"] and row["plain"][-1] > GOOD]
    end = [row["plain"][-1] for row in good]
    lines = [f"{len(rows)} trainings, {len(good)} end above {GOOD}"]
    for kind in ("plain", "average"):
        for grown in (False, True):
            ranks = [spearmanr(seen(good, kind, rung, grown=grown), end).statistic for rung in RUNGS]
            name = f"{kind} {'plus growth' if grown else 'as it stands'}"
            lines.append(f"{name:24s}" + "".join(f"  epoch {r}: {c:.2f}" for r, c in zip(RUNGS, ranks, strict=True)))
    for schedule in sorted({row["schedule"] for row in good}):
        same = [row for row in good if row["schedule"] == schedule]
        gains = [float(np.median([row["plain"][-1] - row["plain"][r - 1] for row in same])) for r in RUNGS]
        averaged = float(np.median([row["average"][-1] - row["plain"][-1] for row in same]))
        lines.append(
            f"{schedule:10s} {len(same):3d} trainings, gain from epoch {RUNGS[0]}: {gains[0]:.4f}, from {RUNGS[1]}: "
            f"{gains[1]:.4f}; the average ends {averaged:+.4f}"
        )
    return lines


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--draws", type=int, default=40)
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("-o", "--output", type=Path, required=True)
    options = arguments.parse_args()
    known = [json.loads(line) for line in options.output.read_text().splitlines()] if options.output.exists() else []
    seeds = sorted(set(range(options.draws)) - {row["seed"] for row in known})
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for row in pool.map(trained, seeds):
            known.append(row)
            with options.output.open("a") as output:
                output.write(json.dumps(row) + "\n")
    print("\n".join(summary(known)))


if __name__ == "__main__":
    main()
