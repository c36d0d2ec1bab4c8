"""The worker's loop, one for every engine: claim, draw, admit, step, report, prune, finish, refill."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hpo.errors import TrainingError
from hpo.store.claims import Wait
from hpo.store.limits import Over
from hpo.store.session import Assignment, Session
from hpo.training import checkpoints
from hpo.training.contract import Checkpoint, Engine, EpochResult, Facts, Fault, TrialFault

CHECKPOINT_SECONDS = 30.0
LOOK_SECONDS = 1.0
"""How often the loop looks beyond its own trials: is the study over, is another worker gone?"""
IDLE_SECONDS = 0.2

_log = logging.getLogger(__name__)


@dataclass
class Live:
    """A trial in the engine's hands."""

    assignment: Assignment
    facts: Facts
    history: list[EpochResult]
    saved: float = field(default_factory=time.monotonic)
    """When it was last checkpointed, by the monotonic clock."""


class Loop:
    """Works on a study until it is over or someone says stop."""

    def __init__(
        self, session: Session, engine: Engine, folder: Path, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        """Checkpoints go below `folder`; `stopping` is asked between epochs."""
        self.session, self.engine, self.folder, self.stopping = session, engine, folder, stopping
        self.live: dict[int, Live] = {}
        self.training_seconds = 0.0
        """Spent in the engine; the rest of the loop's time is what keeping the study costs."""
        self._looked = 0.0
        self._over: Over | None = None

    def run(self) -> Over | None:
        """Work until the study is over, and say why; None if told to stop, with all trials handed back.

        Raises: WorkerLost, StoreError.
        """
        while not self.stopping():
            self.session.check()
            self._look()
            if self._over is not None:
                break
            waiting = self._fill()
            if self.live:
                self._advance()
            elif waiting:
                time.sleep(IDLE_SECONDS)
        for key in list(self.live):
            self._hand_back(key)
        return self._over

    def _look(self) -> None:
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        for number in self.session.reap():
            _log.warning("trial %d: its worker is gone; it goes on under a new number", number)
        self._over = self.session.over()
        self._looked = time.monotonic()

    def _fill(self) -> bool:
        """Claim trials until the engine is full; say whether there was nothing to claim."""
        room = self.engine.room()
        if room == 0:
            return False
        answer = self.session.claim(room)
        if isinstance(answer, Wait):
            return True
        if isinstance(answer, Over):
            self._over = answer
            return True
        for assignment in answer:
            self._admit(assignment)
        return False

    def _admit(self, assignment: Assignment) -> None:
        key, number = assignment.trial_id, assignment.number
        checkpoint = self._checkpoint_of(assignment) if assignment.resumed else None
        try:
            facts = self.engine.admit(key, assignment.config, checkpoint)
        except TrialFault as error:
            self.session.fail(key, error.fault.kind, error.fault.message)
            _log.warning("trial %d failed: %s", number, error.fault.message)
            return
        history = list(checkpoint.history) if checkpoint else []
        if assignment.resumed:
            self.session.restore_curve(key, {r.epoch: r.validation_accuracy for r in history})
        self.session.set_attrs(
            key, {"parameters": facts.parameters, "device": facts.device, "precision": facts.precision}
        )
        self.live[key] = Live(assignment, facts, history)

    def _advance(self) -> None:
        start = time.perf_counter()
        outcomes = self.engine.step()
        self.training_seconds += time.perf_counter() - start
        self.session.refresh()
        for key, outcome in outcomes.items():
            if isinstance(outcome, Fault):
                self._end_faulty(key, outcome)
            else:
                self._take(key, outcome)

    def _take(self, key: int, result: EpochResult) -> None:
        live = self.live[key]
        live.history.append(result)
        self.session.report(key, result.epoch, result.validation_accuracy)
        if result.epoch >= live.assignment.config.epochs:
            self._describe(key)
            self.session.complete(key, result.validation_accuracy)
            self._drop(key)
        elif self.session.should_prune(key):
            self._describe(key)
            self.session.prune(key)
            self._drop(key)
        elif time.monotonic() - live.saved >= CHECKPOINT_SECONDS:
            self._save(key)

    def _end_faulty(self, key: int, fault: Fault) -> None:
        live = self.live[key]
        self._note_course(key)
        if fault.kind == "diverged":
            self.session.diverge(key, fault.message)
        else:
            self.session.fail(key, fault.kind, fault.message)
        _log.warning("trial %d: %s: %s", live.assignment.number, fault.kind, fault.message)
        self._drop(key)

    def _describe(self, key: int) -> None:
        """Note what the trial's end shows, in words that people read on the dashboard."""
        start = time.perf_counter()
        examined = self.engine.examine(key)
        self.training_seconds += time.perf_counter() - start
        gap = examined.train_accuracy - self.live[key].history[-1].validation_accuracy
        self._note_course(key)
        self.session.set_attrs(key, {"train_accuracy": examined.train_accuracy, "overfitting_gap": gap})

    def _note_course(self, key: int) -> None:
        history = self.live[key].history
        figures = ("validation_accuracy", "validation_loss", "train_accuracy", "train_loss", "seconds")
        curves = {name: [round(getattr(result, name), 6) for result in history] for name in figures}
        seconds = round(sum(result.seconds for result in history), 3)
        self.session.set_attrs(key, {"epochs": len(history), "seconds": seconds, "curves": curves})

    def _hand_back(self, key: int) -> None:
        if self.live[key].history:
            self._save(key)
        self.session.hand_back(key)
        self.engine.evict(key)
        del self.live[key]

    def _drop(self, key: int) -> None:
        self.engine.evict(key)
        self._path(self.live.pop(key).assignment).unlink(missing_ok=True)

    def _path(self, assignment: Assignment) -> Path:
        return self.folder / "checkpoints" / f"{assignment.root}.safetensors"

    def _save(self, key: int) -> None:
        """Write a checkpoint; a disk that takes none costs a warning, not the trial."""
        live = self.live[key]
        live.saved = time.monotonic()
        try:
            checkpoints.write(self._path(live.assignment), checkpoints.to_bytes(self.engine.snapshot(key)))
        except OSError as error:
            _log.warning("trial %d: no checkpoint: %s", live.assignment.number, error)

    def _checkpoint_of(self, assignment: Assignment) -> Checkpoint | None:
        path = self._path(assignment)
        try:
            checkpoint = checkpoints.read(path)
        except FileNotFoundError:
            return None
        except TrainingError as error:
            _log.warning("trial %d starts anew: %s", assignment.number, error)
            return None
        return checkpoint if checkpoint.config == assignment.config else None
