"""Pictures of a training: learning curves, confusion matrix, the most confidently wrong images.

As a program (`python -m hpo.plots`) it reads requests from standard input, one JSON object per line -
{"draw": NAME, "to": FILE, "arguments": {...}} - and draws them at the lowest priority: training comes first.
"""

import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hpo import files


def learning_curve(curves: dict[str, Sequence[float]]) -> bytes:
    """Return training and validation accuracy and loss by epoch as PNG; missing curves are left out."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        for part, style in (("train", "--"), ("validation", "-")):
            values = curves.get(f"{part}_{quantity}", ())
            if len(values):
                axes.plot(range(1, len(values) + 1), values, style, label=part, linewidth=1.8)
        axes.set_xlabel("epoch")
        axes.set_ylabel(quantity)
        axes.grid(alpha=0.3)
        axes.legend()
    return _png(figure)


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """Return a confusion matrix as PNG: shares of each true class, with the counts written in."""
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 2.2 + 0.55 * len(classes)
    figure = Figure(figsize=(side, side * 0.92), layout="constrained")
    axes: Any = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", fontsize=8, parse_math=False)
    axes.set_yticks(range(len(classes)), classes, fontsize=8, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for (i, j), count in np.ndenumerate(counts):
        if count:
            axes.text(j, i, str(count), ha="center", va="center", fontsize=7, color="w" if shares[i, j] > 0.5 else "k")
    return _png(figure)


def wrong_images(images: Any, titles: Sequence[str]) -> bytes:
    """Return a sheet of images as PNG, each under its title; images are [N, H, W] or [N, H, W, 3], any scale."""
    pixels = np.asarray(images, dtype=np.float32)
    columns = min(6, max(1, len(titles)))
    rows = max(1, -(-len(titles) // columns))
    figure = Figure(figsize=(1.5 * columns, 1.75 * rows), layout="constrained")
    for axes, image, title in zip(np.ravel(figure.subplots(rows, columns)), pixels, titles, strict=False):
        low, high = float(image.min()), float(image.max())
        axes.imshow((image - low) / ((high - low) or 1.0), cmap="gray_r" if image.ndim == 2 else None)
        axes.set_title(title, fontsize=7, parse_math=False)
    for axes in figure.axes:
        axes.axis("off")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of characters that the font has not
        figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


DRAWINGS: dict[str, Callable[..., bytes]] = {
    "learning_curve": learning_curve,
    "confusion": confusion,
    "wrong_images": wrong_images,
}


def _give_way() -> None:
    """Take what the workers leave of the CPU, also where they have a low priority themselves: on Ray it is 15."""
    if hasattr(os, "SCHED_IDLE") and os.nice(0) > 0:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    elif hasattr(os, "nice"):
        os.nice(19)


def main() -> None:
    """Draw the pictures that standard input asks for, until it ends."""
    _give_way()
    for line in sys.stdin:
        job = json.loads(line)
        path = Path(job["to"])
        try:
            files.write(files.under(path.parent, path.name), DRAWINGS[job["draw"]](**job["arguments"]))
        except OSError as error:
            print(f"{path}: cannot be written: {error.strerror or error}", file=sys.stderr)


if __name__ == "__main__":
    main()
