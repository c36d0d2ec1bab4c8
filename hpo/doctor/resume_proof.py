"""Proof that a killed trial goes on as if nothing had happened: one is killed and resumed, one is left alone.

Both are trained by real workers in processes of their own, on stores in a temporary folder. What is compared
is all that training leaves: the weights, the optimizer's and the batch statistics' state, and the curve.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpo import data
from hpo.artifacts import FolderFiles
from hpo.errors import HpoError, TrainingError
from hpo.recipe import Budget, Checkpoints, Pruner, Sampler, StudyRecipe
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.space import SearchSpace
from hpo.store import studies
from hpo.store.database.connect import open_store
from hpo.store.database.url import parse
from hpo.training import checkpoints
from hpo.training.engine import Checkpoint

NAME = "doctor"
FIGURES = ("epoch", "validation_accuracy", "validation_loss", "train_accuracy", "train_loss")
"""What of an epoch's result must agree; its seconds cannot."""


@dataclass(frozen=True)
class ResumeProof:
    """What became of a trial that was killed, beside the same trial left alone."""

    summary: str
    """Of the config."""
    epochs: int
    killed_after: int
    """Epochs that its last checkpoint held when it was killed."""
    tensors: int
    """So many were compared."""
    differing: tuple[str, ...]
    """What is not the same bit for bit; empty if all is."""


def prove_resume(space: SearchSpace, seed: int, device: str, say: Callable[[str], None]) -> ResumeProof:
    """Train a space's first trial twice, killing it once, and compare.

    Raises: TrainingError if a worker fails or if the trial is too short to be killed; HpoError for bad data.
    """
    with tempfile.TemporaryDirectory() as temporary:
        say("training without interruption")
        whole = _Trial(Path(temporary) / "whole", space, seed, device)
        whole.finish()
        expected = whole.state()
        epochs = expected.config.epochs
        say(f"training once more, to be killed after about {(epochs + 1) // 2} of {epochs} epochs")
        killed = _Trial(Path(temporary) / "killed", space, seed, device)
        after = killed.kill((epochs + 1) // 2)
        say(f"killed after epoch {after}; another worker goes on")
        killed.finish()
        found = killed.state()
    return ResumeProof(expected.config.summary(), epochs, after, len(expected.tensors), _differences(expected, found))


def _differences(expected: Checkpoint, found: Checkpoint) -> tuple[str, ...]:
    differing = [] if expected.config == found.config else ["config"]
    names = sorted(expected.tensors.keys() | found.tensors.keys())
    for name in names:
        one, other = expected.tensors.get(name), found.tensors.get(name)
        if one is None or other is None or one.dtype != other.dtype or one.tobytes() != other.tobytes():
            differing.append(name)
    for figure in FIGURES:
        if [getattr(r, figure) for r in expected.history] != [getattr(r, figure) for r in found.history]:
            differing.append(f"curve of {figure}")
    return tuple(differing)


class _Trial:
    """One trial's study, store and files in a folder of its own."""

    def __init__(self, folder: Path, space: SearchSpace, seed: int, device: str) -> None:
        folder.mkdir()
        self._url, self._device = f"sqlite:///{folder}/studies.db", device
        self._environment = os.environ | {"HPO_STORAGE": self._url, "HPO_ARTIFACTS": str(folder)}
        recipe = StudyRecipe(
            seed=seed,
            engine="solo",  # what is packed agrees up to rounding, not to the bit
            budget=Budget(trials=1, max_failures=1),
            sampler=Sampler(name="random"),
            pruner=Pruner(name="none"),
            checkpoints=Checkpoints(every_seconds=0, keep_best=1),
        )
        store = open_store(parse(self._url), create=True)
        fingerprint = data.fingerprint(data.info(space.data), space.split)
        studies.create(store, NAME, NAME, space, recipe, fingerprint)
        self._files = FolderFiles(folder / studies.load_study(store, NAME).uid)
        store.dispose()

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "hpo", "worker", "--study", NAME, "--device", self._device]
        return subprocess.Popen(command, env=self._environment, stderr=subprocess.PIPE, text=True)

    def finish(self) -> None:
        """Have a worker train the trial to its end."""
        _, said = (worker := self._start()).communicate()
        if worker.returncode != 0:
            raise TrainingError(f"the worker ended with exit code {worker.returncode}: {said.strip()}")

    def kill(self, after: int) -> int:
        """Kill a worker (SIGKILL) when its checkpoint holds so many epochs; return how many it holds."""
        worker = self._start()
        while worker.poll() is None:
            state = self._saved()
            if state is not None and after <= len(state.history) < state.config.epochs:
                worker.kill()
                worker.wait()
                return len(self.state().history)
            time.sleep(0.002)
        _, said = worker.communicate()
        if worker.returncode != 0:
            raise TrainingError(f"the worker ended with exit code {worker.returncode}: {said.strip()}")
        raise TrainingError("the trial ended before it could be killed: it is too short. Choose a larger --space.")

    def _saved(self) -> Checkpoint | None:
        name = CheckpointRetention.name_of(0)
        content = self._files.read(name)
        return None if content is None else checkpoints.from_bytes(content, name)

    def state(self) -> Checkpoint:
        """Return the trial's last checkpoint."""
        state = self._saved()
        if state is None:
            raise HpoError("the worker left no checkpoint: is the disk full? Free some space, or set TMPDIR.")
        return state
