"""Proof that a killed trial resumes exactly: one trial is killed and resumed, the same trial runs without interruption.

Both are trained by real worker processes, on stores in a temporary folder. Everything that training leaves is
compared: the weights, the state of the optimizer and of the batch statistics, and the curve.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpo import data
from hpo.artifacts import FolderFiles
from hpo.errors import HpoError, TrainingError
from hpo.interpreter import python
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
"""Fields of an epoch's result that must agree; its seconds cannot."""


@dataclass(frozen=True)
class ResumeProof:
    """A trial that was killed and resumed, compared with the same trial without interruption."""

    summary: str
    """The config in one line."""
    epochs: int
    killed_after: int
    """Epochs in its last checkpoint when it was killed."""
    tensors: int
    """Number of tensors that were compared."""
    differing: tuple[str, ...]
    """Names of what differs in any bit; empty if nothing does."""


def prove_resume(space: SearchSpace, seed: int, device: str, progress: Callable[[str], None]) -> ResumeProof:
    """Train a space's first trial twice, killing it once, and compare.

    `progress` is called with what is done next. Raises: TrainingError if a worker fails or the trial is too short to be
    killed; HpoError for wrong data.
    """
    with tempfile.TemporaryDirectory() as temporary:
        progress("training without interruption")
        whole = _Trial(Path(temporary) / "whole", space, seed, device)
        whole.finish()
        expected = whole.state()
        epochs = expected.config.epochs
        progress(f"training again, to be killed after about {(epochs + 1) // 2} of {epochs} epochs")
        killed = _Trial(Path(temporary) / "killed", space, seed, device)
        after = killed.kill((epochs + 1) // 2)
        progress(f"killed after epoch {after}; another worker resumes it")
        killed.finish()
        resumed = killed.state()
    return ResumeProof(expected.config.summary(), epochs, after, len(expected.tensors), _differences(expected, resumed))


def _differences(expected: Checkpoint, resumed: Checkpoint) -> tuple[str, ...]:
    differing = [] if expected.config == resumed.config else ["config"]
    names = sorted(expected.tensors.keys() | resumed.tensors.keys())
    for name in names:
        one, other = expected.tensors.get(name), resumed.tensors.get(name)
        if one is None or other is None or one.dtype != other.dtype or one.tobytes() != other.tobytes():
            differing.append(name)
    for figure in FIGURES:
        if [getattr(r, figure) for r in expected.history] != [getattr(r, figure) for r in resumed.history]:
            differing.append(f"curve of {figure}")
    return tuple(differing)


class _Trial:
    """A study of one trial, with its store and files in a separate folder."""

    def __init__(self, folder: Path, space: SearchSpace, seed: int, device: str) -> None:
        folder.mkdir()
        self._url, self._device = f"sqlite:///{folder}/studies.db", device
        self._environment = os.environ | {"HPO_STORAGE": self._url, "HPO_ARTIFACTS": str(folder)}
        self._errors = folder / "errors.txt"
        recipe = StudyRecipe(
            seed=seed,
            engine="solo",  # the packed engine agrees up to rounding only
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

    def _start(self) -> subprocess.Popen[bytes]:
        command = python("-m", "hpo", "worker", "--study", NAME, "--device", self._device)
        with self._errors.open("wb") as errors:
            return subprocess.Popen(command, env=self._environment, stderr=errors)

    def _check_ended(self, worker: subprocess.Popen[bytes]) -> None:
        code = worker.wait()
        if code != 0:
            errors = self._errors.read_text(encoding="utf-8", errors="replace").strip()
            raise TrainingError(f"the worker ended with exit code {code}: {errors}")

    def finish(self) -> None:
        """Run a worker that trains the trial to its end."""
        self._check_ended(self._start())

    def kill(self, after: int) -> int:
        """Kill a worker (SIGKILL) when its checkpoint has `after` epochs or more; return how many it has."""
        worker = self._start()
        while worker.poll() is None:
            state = self._saved()
            if state is not None and after <= len(state.history) < state.config.epochs:
                worker.kill()
                worker.wait()
                return len(self.state().history)
            time.sleep(0.01)
        self._check_ended(worker)
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
