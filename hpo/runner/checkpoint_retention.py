"""Which checkpoints are kept: those of running trials, of the best ones, and of the pruned ones that promise most."""

import logging
import time
from collections.abc import Callable

from hpo.artifacts import Files, FolderFiles
from hpo.errors import TrainingError
from hpo.recipe import Checkpoints
from hpo.runner.session import Assignment
from hpo.store.database.connect import Store
from hpo.store.leases import stopping
from hpo.store.studies import StudyRecord
from hpo.training import checkpoints
from hpo.training.engine import Checkpoint

_log = logging.getLogger(__name__)


def policy_of(store: Store, study: StudyRecord) -> Checkpoints:
    """Return which checkpoints a study keeps: of at least as many pruned trials as are to get a second chance."""
    with store.read() as connection:
        revive = stopping.budget_of(connection, study.study_id)[0].revive
    policy = study.recipe.checkpoints
    return policy.model_copy(update={"keep_pruned": max(policy.keep_pruned, revive)})


class CheckpointRetention:
    """Writes, reads and deletes a study's checkpoints. If one cannot be written, it warns, and the trial continues."""

    def __init__(self, files: Files, policy: Checkpoints) -> None:
        self.files, self.policy = files, policy
        self._saved: dict[int, float] = {}
        """Time of a running trial's last checkpoint on the monotonic clock, by root."""
        self._warned = self._removal_warned = False

    @staticmethod
    def name_of(root: int) -> str:
        """Return the file of a trial, by the number under which it first began."""
        return f"checkpoints/{root}.safetensors"

    def admitted(self, root: int) -> None:
        """Start to count the seconds to a trial's first checkpoint."""
        self._saved[root] = time.monotonic()

    def save_if_due(self, root: int, snapshot: Callable[[], Checkpoint]) -> None:
        """Save a running trial if its last checkpoint is old enough."""
        if time.monotonic() - self._saved[root] >= self.policy.every_seconds:
            self.save(root, snapshot)

    def save(self, root: int, snapshot: Callable[[], Checkpoint]) -> None:
        """Save a trial."""
        self._saved[root] = time.monotonic()
        try:
            self.files.write(self.name_of(root), checkpoints.to_bytes(snapshot()))
            self._warned = False
        except OSError as error:
            if not self._warned:
                _log.warning("no checkpoints can be written, a killed trial would start from epoch 1: %s", error)
            self._warned = True

    def find(self, assignment: Assignment) -> Checkpoint | None:
        """Return a trial's checkpoint, if there is one that fits its config."""
        name = self.name_of(assignment.root)
        try:
            content = self.files.read(name)
            checkpoint = None if content is None else checkpoints.from_bytes(content, name)
        except (OSError, TrainingError) as error:
            _log.warning("trial %d starts from epoch 1: %s", assignment.number, error)
            return None
        return checkpoint if checkpoint is not None and checkpoint.config == assignment.config else None

    def ended(
        self,
        root: int,
        snapshot: Callable[[], Checkpoint] | None,
        best: list[int],
        displaced: list[int],
        unfinished: set[int],
    ) -> None:
        """Keep an ended trial's final state if it is among the best, and delete checkpoints that are no longer needed.

        `snapshot` is None for a trial that failed. `best` are the roots of the trials that are kept, the most wanted
        first; `displaced` those that no longer are; `unfinished` those of the trials that may still be resumed.
        """
        if snapshot is not None and root in best:
            self.save(root, snapshot)
        self._saved.pop(root, None)
        for unwanted in {root, *displaced} - set(best) - unfinished:
            self._remove(unwanted)
        if isinstance(self.files, FolderFiles):
            self._clear(self.files, best, unfinished)

    def _remove(self, root: int) -> None:
        try:
            self.files.remove(self.name_of(root))
            self._removal_warned = False
        except OSError as error:
            if not self._removal_warned:
                _log.warning("checkpoints that are no longer needed cannot be deleted: %s", error)
            self._removal_warned = True

    def _clear(self, folder: FolderFiles, best: list[int], unfinished: set[int]) -> None:
        """Keep a folder below its limit: of the finished trials' checkpoints the worst go first."""
        sizes = {}
        for path in (folder.path / "checkpoints").glob("*.safetensors"):
            try:
                sizes[int(path.stem)] = path.stat().st_size
            except (OSError, ValueError):
                continue
        total = sum(sizes.values())
        for root in [r for r in reversed(best) if r in sizes and r not in unfinished]:
            if total <= self.policy.max_megabytes * 1e6:
                break
            self._remove(root)
            total -= sizes[root]
