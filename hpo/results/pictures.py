"""Pictures of a training: learning curves, confusion matrix."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def learning_curve(curves: dict[str, Sequence[float]]) -> bytes:
    """Return training and validation accuracy and loss by epoch as PNG; what is missing is left out."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, what in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        for part, style in (("train", "--"), ("validation", "-")):
            values = curves.get(f"{part}_{what}", ())
            if len(values):
                axes.plot(range(1, len(values) + 1), values, style, label=part, linewidth=1.8)
        axes.set_xlabel("epoch")
        axes.set_ylabel(what)
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
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(classes)), classes, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for (i, j), count in np.ndenumerate(counts):
        if count:
            axes.text(j, i, str(count), ha="center", va="center", fontsize=7, color="w" if shares[i, j] > 0.5 else "k")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
