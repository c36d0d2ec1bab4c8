"""Pictures that optuna-dashboard shows beside a trial: drawn by a process of the lowest priority, outside training.

The worker only hands over numbers; what it notes on the trial is where the picture will be.
"""

import json
import queue
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.config import Split
from hpo.interpreter import python
from hpo.store.attributes import Entry
from hpo.store.record import TrialAttributes

MAX_PICTURES = 300
"""Most pictures of one worker; each has some ten thousand bytes."""
WRONG_IMAGES = 18
"""Most images in one picture of errors."""


@dataclass(frozen=True)
class Validation:
    """The validation rows, before standardization."""

    x: NDArray[Any]
    """[N, C, H, W] of images, [N, F] of tables."""
    y: NDArray[np.int64]
    classes: tuple[str, ...]


def can_draw() -> bool:
    """Say whether matplotlib is installed."""
    try:
        version("matplotlib")
    except PackageNotFoundError:
        return False
    return True


class TrialPlotter:
    """Has pictures of ended trials drawn. Use as a context; leaving it lets the drawing finish."""

    def __init__(self, folder: Path, uid: str, validation: Callable[[Split], Validation]) -> None:
        """`folder` is where the dashboard looks for artifacts; `validation` reads the rows of a cut."""
        self.folder, self.uid, self._load = folder, uid, validation
        self._validation: Validation | None = None
        self._split: Split | None = None
        self._left = MAX_PICTURES
        self._jobs: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "TrialPlotter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout=5)

    def curves(self, trial_id: int, curves: Mapping[str, Sequence[float]]) -> list[Entry]:
        """Have a trial's learning curves drawn; return the attributes by which the dashboard shows them."""
        return self._draw(trial_id, "learning_curve", {"curves": dict(curves)})

    def errors(self, trial_id: int, probabilities: NDArray[np.float32], split: Split) -> list[Entry]:
        """Have a confusion matrix drawn and, of images, those that are most confidently wrong."""
        if self._validation is None or self._split != split:
            self._validation, self._split = self._load(split), split
        known = self._validation
        if len(known.y) != len(probabilities):
            return []
        predicted = probabilities.argmax(1)
        size = len(known.classes)
        matrix = np.bincount(known.y * size + predicted, minlength=size * size).reshape(size, size)
        shown = self._draw(trial_id, "confusion", {"matrix": matrix.tolist(), "classes": known.classes})
        wrong = np.flatnonzero(predicted != known.y)
        if known.x.ndim == 4 and len(wrong):
            sure = probabilities[wrong, predicted[wrong]]
            worst = wrong[np.argsort(-sure, kind="stable")][:WRONG_IMAGES]
            images = known.x[worst][:, 0] if known.x.shape[1] == 1 else known.x[worst].transpose(0, 2, 3, 1)
            titles = [
                f"{known.classes[known.y[i]]}\nnot {known.classes[predicted[i]]} ({probabilities[i].max():.2f})"
                for i in worst
            ]
            shown += self._draw(trial_id, "wrong_images", {"images": images.tolist(), "titles": titles})
        return shown

    def _draw(self, trial_id: int, name: str, arguments: dict[str, Any]) -> list[Entry]:
        if self._left <= 0:
            return []
        self._left -= 1
        if self._thread is None:
            self._thread = threading.Thread(target=self._feed, name="pictures", daemon=True)
            self._thread.start()
        # The dashboard's addresses of artifacts take hexadecimal digits and dashes.
        key = f"{self.uid}-{trial_id:x}-{sum(name.encode()):x}"
        self._jobs.put(json.dumps({"draw": name, "to": str(self.folder / key), "arguments": arguments}))
        about = {"artifact_id": key, "filename": f"{name}.png", "mimetype": "image/png", "encoding": None}
        return [TrialAttributes.artifacts.entry(key, json.dumps(about))]

    def _feed(self) -> None:
        """Start the drawing process and send it one job after another; its input ends when the worker dies."""
        command = python("-m", "hpo.plots")
        process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
        assert process.stdin is not None
        try:
            with process.stdin as jobs:
                while (job := self._jobs.get()) is not None:
                    jobs.write(job + "\n")
                    jobs.flush()
        except OSError:  # the drawing process has died: there are no pictures, training is not affected
            return
