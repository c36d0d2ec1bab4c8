"""Pictures of a training: learning curves, confusion matrix, the most confidently wrong images.

As a program (`python -m hpo.plots`) it reads requests from standard input, one JSON object per line -
{"draw": NAME, "to": FILE, "arguments": {...}} - and draws them at the lowest priority: training comes first.
"""

import contextlib
import io
import json
import os
import queue
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from hpo import files

AUTOGROUP = Path("/proc/self/autogroup")
PAUSE = 4.0
"""Pause after a picture, as a multiple of the time that it took, beside workers of a low priority: these leave even the
idle class a twelfth of their CPU."""
LONGEST_NAME = 30
"""Longest name of a class in a picture; the rest of a longer one is left out."""


# Margins are computed here: matplotlib's own layouts draw everything several times, which took most of the CPU time.


def learning_curve(curves: dict[str, Sequence[float]]) -> bytes:
    """Return training and validation accuracy and loss by epoch as PNG; missing curves are left out."""
    figure = Figure(figsize=(9, 3.6))
    figure.subplots_adjust(left=0.08, right=0.99, bottom=0.14, top=0.92, wspace=0.22)
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
    names = [name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "\u2026" for name in classes]
    side, margin = 0.55 * len(names), 0.6 + max(map(_width, names))
    whole = margin + side + 0.2
    figure = Figure(figsize=(whole, whole))
    axes: Any = figure.add_axes((margin / whole, margin / whole, side / whole, side / whole))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8, parse_math=False)
    axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
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
    height, width = pixels.shape[1:3]
    figure = Figure(figsize=(1.5 * columns, 1.75 * rows))
    axes: Any = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    for place, (image, title) in enumerate(zip(pixels, titles, strict=False)):
        low, high = float(image.min()), float(image.max())
        row, column = divmod(place, columns)
        # An inch and a quarter for the longer side, below two lines of text.
        right, down = (1.25 * length / max(height, width) for length in (width / 1.5, height / 1.75))
        left, top = column + (1 - right) / 2, row + 0.25
        axes.imshow(
            (image - low) / ((high - low) or 1.0),
            cmap="gray_r" if image.ndim == 2 else None,
            extent=(left, left + right, top + down, top),
            aspect="auto",
        )
        axes.text(column + 0.5, row + 0.23, title, ha="center", va="bottom", fontsize=7, parse_math=False)
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    return _png(figure)


def _width(text: str) -> float:
    """Return the width of a label of size 8 in inches."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of characters that the font has not
        width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=8), ismath=False)
    return float(width) / 72


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
    """Take what the workers leave of the CPU."""
    # Where Linux schedules sessions as groups, priorities count within a session: that of this one has to be lowered.
    if AUTOGROUP.exists() and os.getsid(0) == os.getpid():
        for _ in range(5):
            try:
                AUTOGROUP.write_text("19")
                break
            except BlockingIOError:  # the kernel takes one change every tenth of a second
                time.sleep(0.15)
            except OSError:
                break
    if hasattr(os, "SCHED_IDLE") and _workers_give_way():
        with contextlib.suppress(OSError):  # some containers forbid it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    if hasattr(os, "nice"):
        os.nice(19)


def _workers_give_way() -> bool:
    """Say whether the workers have a low priority themselves, as on Ray: 15."""
    return hasattr(os, "nice") and os.nice(0) > 0


def main() -> None:
    """Draw the pictures that standard input asks for, until it ends."""
    pause = PAUSE if _workers_give_way() else 0.0
    _give_way()
    jobs, over = queue.SimpleQueue[str | None](), threading.Event()

    def read() -> None:
        for line in sys.stdin:
            jobs.put(line)
        over.set()
        jobs.put(None)

    threading.Thread(target=read, daemon=True).start()
    while (line := jobs.get()) is not None:
        job, began = json.loads(line), time.monotonic()
        path = Path(job["to"])
        try:
            files.write(files.under(path.parent, path.name), DRAWINGS[job["draw"]](**job["arguments"]))
        except OSError as error:
            print(f"{path}: cannot be written: {error.strerror or error}", file=sys.stderr)
        over.wait(pause * (time.monotonic() - began))


if __name__ == "__main__":
    main()
