"""The worker's loop, one for every engine: claim, draw, admit, step, report, prune, finish, refill."""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.constraint_check import ConstraintCheck
from hpo.runner.dashboard_note import DashboardNoteWriter
from hpo.runner.prefetch import Prefetcher
from hpo.runner.process_stats import process_stats
from hpo.runner.recording import TrainingClock, TrialRecorder, value_of
from hpo.runner.session import Assignment, Session
from hpo.runner.trial_plots import TrialPlotter
from hpo.store.leases.claims import NothingToClaim
from hpo.store.leases.stopping import StopReason
from hpo.store.record import TrialAttributes
from hpo.training.engine import Checkpoint, Engine, EpochResult, Fault, TrialFault

IDLE_SECONDS = 0.2
OOM_PARTS = 4
"""Parts that the batches of a trial that ran out of memory are split into, once."""
ALIKE = 3
"""The study stops after so many first trials that fail alike, with none finished."""

_log = logging.getLogger(__name__)


@dataclass
class Live:
    """A trial that the engine trains."""

    assignment: Assignment
    history: list[EpochResult]
    retried: bool = False
    """Whether its batches are split because it ran out of memory."""


class Loop:
    """Works on a study until it is over, or until told to stop."""

    def __init__(
        self,
        session: Session,
        engine: Engine,
        keeper: CheckpointRetention,
        stopping: Callable[[], bool] = lambda: False,
        plotter: TrialPlotter | None = None,
        *,
        idle: float | None = None,
    ) -> None:
        """`stopping` is asked between epochs. After `idle` seconds with nothing to claim the loop ends."""
        self.session, self.engine, self.keeper, self.stopping = session, engine, keeper, stopping
        self.notes = DashboardNoteWriter(session.store, session.study, session.worker_id, session.search.importances)
        self.live: dict[int, Live] = {}
        self.prefetcher = Prefetcher(session.claim) if engine.is_async else None
        self.clock = TrainingClock()
        self._recorder = TrialRecorder(session, engine, self.clock, plotter)
        self._constraints = ConstraintCheck(session, engine)
        self._failures: list[str] | None = []
        """Failures of this worker's trials; None once one has finished."""
        self._looked = 0.0
        self._idle, self._busy_at = idle, time.monotonic()
        self._over: StopReason | None = None

    def run(self) -> StopReason | None:
        """Work until the study is over, and return why; None if told to stop or idle, with all trials released.

        Raises: WorkerLost, StoreError.
        """
        while not self.stopping():
            self.session.link.check()
            self._look()
            if self._over is not None:
                break
            waiting = self.fill()
            if self.live:
                self.advance()
                self._busy_at = time.monotonic()
            elif waiting:
                if self._idle is not None and time.monotonic() - self._busy_at > self._idle:
                    break
                time.sleep(IDLE_SECONDS)
        for key in list(self.live):
            self._release(key)
        for assignment in self.prefetcher.ready if self.prefetcher else ():
            self.session.release(assignment.trial_id)
        if self._over is not None:
            self.session.link.flush()
            self.notes.write_if_due(at_once=True)
        return self._over

    def _look(self) -> None:
        """Look beyond this worker's trials: is the study over, is another worker dead?"""
        link = self.session.link
        if time.monotonic() - self._looked < link.look_seconds:
            return
        for number in link.reap():
            _log.warning("trial %d: its worker is dead; it continues under a new number", number)
        self._over = link.stop_reason()
        self.notes.write_if_due()
        link.describe_worker({**process_stats(), **self.engine.status()})
        self._looked = time.monotonic()

    def fill(self) -> bool:
        """Claim trials until the engine is full; return whether there was nothing to claim."""
        if self.live and self.session.link.away_seconds > 0:  # no claim would be answered; keep training
            return False
        while self.prefetcher and self.prefetcher.ready and self.engine.room() > 0:
            self._start(self.prefetcher.ready.popleft())
        room = self.engine.room()
        if room == 0:
            return False
        answer = self.session.claim(room)
        if isinstance(answer, NothingToClaim):
            return True
        if isinstance(answer, StopReason):
            self._over = answer
            return True
        for assignment in answer:
            self._start(assignment)
        return False

    def _start(self, assignment: Assignment) -> None:
        """Have a trial trained, if the space's constraints allow it."""
        try:
            allowed = self._constraints.allows(assignment)
        except TrialFault as error:
            self._fail(Live(assignment, []), error.fault)
            return
        if allowed:
            self._admit(assignment)

    def _admit(self, assignment: Assignment) -> None:
        """Give a trial to the engine, from its checkpoint if it has one."""
        self._admit_from(assignment, self.keeper.find(assignment) if assignment.resumed else None)

    def _admit_from(self, assignment: Assignment, checkpoint: Checkpoint | None) -> None:
        history = list(checkpoint.history) if checkpoint else []
        key, metric, trials = assignment.trial_id, assignment.config.metric, self.session.trials
        if assignment.resumed:
            trials.restore_curve(key, {result.epoch: result.score(metric) for result in history})
        live = Live(assignment, history)
        try:
            facts = self.engine.admit(key, assignment.config, checkpoint)
        except TrialFault as error:
            if checkpoint is None:
                self._fail(live, error.fault)
                return
            fault = error.fault.message
            _log.warning("trial %d starts from epoch 1: its checkpoint does not fit: %s", assignment.number, fault)
            self._admit_from(assignment, None)
            return
        trials.note(
            key,
            TrialAttributes.parameters.entry(facts.parameters),
            TrialAttributes.device.entry(facts.device),
            TrialAttributes.precision.entry(facts.precision),
        )
        self.keeper.admitted(assignment.root)
        self.live[key] = live
        if history and history[-1].last:  # its worker died between the last checkpoint and recording the end
            self._finish(key)

    def advance(self) -> None:
        """Train one step, and take its results."""
        before, outcomes = len(self.live), self._step()
        self.session.refresh()
        for key, outcome in outcomes.items():
            if isinstance(outcome, Fault):
                self._end_faulty(key, outcome)
            else:
                self._take(key, outcome)
        if self.prefetcher is not None:
            last = sum(isinstance(outcome, EpochResult) and outcome.last for outcome in outcomes.values())
            self.prefetcher.noted(before - len(self.live) - last)

    def _step(self) -> dict[int, EpochResult | Fault]:
        """Have the engine train; while it only waits for its device, draw the trials that come next."""
        if self.prefetcher is not None:
            lives = self.live.values() if self.session.link.away_seconds == 0 else ()
            self.prefetcher.begin([live.assignment.config.epochs - len(live.history) for live in lives])
        try:
            with self.clock:
                return self.engine.step()
        finally:
            if self.prefetcher is not None:
                self.prefetcher.end()

    def _take(self, key: int, result: EpochResult) -> None:
        live, trials = self.live[key], self.session.trials
        live.history.append(result)
        trials.report(key, result.epoch, result.score(live.assignment.config.metric))
        if result.last:
            self._finish(key)
        elif trials.should_prune(key):
            self._recorder.record_end(key, live.assignment.config, live.history, complete=False)
            trials.prune(key)
            self._drop(key, resumable=True)
            self._failures = None
        else:
            self.keeper.save_if_due(live.assignment.root, lambda: self.engine.snapshot(key))

    def _finish(self, key: int) -> None:
        live = self.live[key]
        self._recorder.record_end(key, live.assignment.config, live.history, complete=True)
        self.session.trials.complete(key, value_of(live.assignment.config, live.history))
        self._drop(key, resumable=True)
        self._failures = None

    def _end_faulty(self, key: int, fault: Fault) -> None:
        live = self.live[key]
        if fault.kind == "oom" and not live.retried:
            self._retry_in_parts(key, fault)
            return
        self._recorder.record_history(key, live.history)
        if fault.kind == "diverged":
            self.session.trials.diverge(key, fault.message)
            self._failures = None
            _log.warning("trial %d diverged: %s", live.assignment.number, fault.message)
        else:
            self._fail(live, fault)
        self._drop(key)

    def _retry_in_parts(self, key: int, fault: Fault) -> None:
        """Train a trial that ran out of memory again, from its start, in smaller parts of the same batch."""
        live, trials = self.live.pop(key), self.session.trials
        self.engine.evict(key)
        _log.warning("trial %d ran out of memory: again in %d parts", live.assignment.number, OOM_PARTS)
        config = replace(live.assignment.config, accumulation=OOM_PARTS * live.assignment.config.accumulation)
        trials.note(
            key, TrialAttributes.config.entry(config.to_dict()), TrialAttributes.retried_after.entry(fault.message)
        )
        trials.restore_curve(key, {})
        self._admit(replace(live.assignment, config=config, resumed=False))
        if key in self.live:
            self.live[key].retried = True

    def _fail(self, live: Live, fault: Fault) -> None:
        """Record a failure; stop the study if nothing but this happens."""
        self.session.trials.fail(live.assignment.trial_id, fault.kind, fault.message)
        _log.warning("trial %d: %s: %s", live.assignment.number, fault.kind, fault.message)
        if self._failures is None:
            return
        self._failures.append(re.sub(r"\d+", "N", f"{fault.kind}: {fault.message}"))
        if len(self._failures) >= ALIKE and len(set(self._failures)) == 1:
            reason = f"the first trials all failed alike ({fault.kind}: {fault.message})"
            self.session.link.stop_study_without_results(reason)

    def _release(self, key: int) -> None:
        live = self.live.pop(key)
        if live.history:
            self.keeper.save(live.assignment.root, lambda: self.engine.snapshot(key))
        self.session.release(key)
        self.engine.evict(key)

    def _drop(self, key: int, *, resumable: bool = False) -> None:
        """Remove an ended trial from the engine, and keep or delete its checkpoint."""
        live, ranking, policy = self.live.pop(key), self.session.ranking, self.keeper.policy
        best, displaced = ranking.best_roots(policy.keep_best)
        pruned, no_longer = self.session.search.second_chances.roots(policy.keep_pruned)
        snapshot = (lambda: self.engine.snapshot(key)) if resumable else None
        kept = best + [root for root in pruned if root not in best]
        self.keeper.ended(live.assignment.root, snapshot, kept, displaced + no_longer, ranking.unfinished_roots())
        self.engine.evict(key)
