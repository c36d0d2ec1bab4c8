"""The worker's loop, one for every engine: claim, draw, admit, step, report, prune, finish, refill."""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from hpo.constraints import Costs
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.dashboard_note import DashboardNoteWriter
from hpo.runner.prefetch import Prefetcher
from hpo.runner.process_stats import process_stats
from hpo.runner.session import Assignment, Session
from hpo.runner.trial_plots import TrialPlotter
from hpo.store.leases.claims import NothingToClaim
from hpo.store.leases.stopping import StopReason
from hpo.store.record import TrialAttributes
from hpo.training.engine import Engine, EpochResult, Fault, TrialFault, final

LOOK_SECONDS = 1.0
"""How often the loop looks beyond its own trials: is the study over, is another worker gone?"""
IDLE_SECONDS = 0.2
OOM_PARTS = 4
"""Parts that the batches of a trial that ran out of memory are split into, once."""
MAX_REJECTED = 100
"""So many draws in a row that break the space's constraints end the study."""
ALIKE = 3
"""So many first trials that fail alike, with none finished, end the study."""

_log = logging.getLogger(__name__)


@dataclass
class Live:
    """A trial in the engine's hands."""

    assignment: Assignment
    history: list[EpochResult]
    retried: bool = False
    """Whether it is being trained in parts because it ran out of memory."""


class Loop:
    """Works on a study until it is over or someone says stop."""

    def __init__(
        self,
        session: Session,
        engine: Engine,
        keeper: CheckpointRetention,
        stopping: Callable[[], bool] = lambda: False,
        illustrator: TrialPlotter | None = None,
    ) -> None:
        """`stopping` is asked between epochs."""
        self.illustrator = illustrator
        self.notes = DashboardNoteWriter(session.store, session.study, session.worker_id, session.importances)
        self.session, self.engine, self.keeper, self.stopping = session, engine, keeper, stopping
        self.live: dict[int, Live] = {}
        self.ahead = Prefetcher(session.claim) if engine.is_async else None
        self.training_seconds = 0.0
        """Spent in the engine; the rest of the loop's time is what keeping the study costs."""
        self._failures: list[str] | None = []
        """What this worker's trials died of; None once one has finished."""
        self._looked = 0.0
        self._over: StopReason | None = None

    def run(self) -> StopReason | None:
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
        for assignment in self.ahead.ready if self.ahead else ():
            self.session.hand_back(assignment.trial_id)
        if self._over is not None:
            self.session.flush()
            self.notes.write_if_due(at_once=True)
        return self._over

    def _look(self) -> None:
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        for number in self.session.reap():
            _log.warning("trial %d: its worker is gone; it goes on under a new number", number)
        self._over = self.session.over()
        self.notes.write_if_due()
        self.session.describe_worker({**process_stats(), **self.engine.status()})
        self._looked = time.monotonic()

    def _fill(self) -> bool:
        """Claim trials until the engine is full; say whether there was nothing to claim."""
        if self.live and self.session.away_seconds > 0:  # what is there is trained on; no claim would be answered
            return False
        while self.ahead and self.ahead.ready and self.engine.room() > 0:
            self._start(self.ahead.ready.popleft())
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
        if self._is_allowed(assignment):
            self._admit(assignment)

    def _is_allowed(self, assignment: Assignment) -> bool:
        """Find out what a trial costs, where that matters; one that breaks the space's constraints is not trained."""
        study, key = self.session.study, assignment.trial_id
        if self.session.knows_costs(key):
            return True
        constraints, costs = study.space.constraints, Costs()
        wanted = [*constraints.limits, *([study.recipe.cost] if study.recipe.cost is not None else [])]
        for name in dict.fromkeys(wanted):  # what breaks a cheap one need not be built to be timed
            try:
                costs |= self.engine.measure(assignment.config, [name])
            except TrialFault as error:
                self._fail(Live(assignment, []), error.fault)
                return False
            if constraints.broken(costs):
                break
        self.session.note_costs(key, costs)
        broken = constraints.broken(costs)
        if broken and self.session.reject(key, broken) >= MAX_REJECTED:
            self.session.stop(
                f"{MAX_REJECTED} draws in a row broke the constraints ({broken}); loosen them or narrow the space "
                "(hpo studies set-space)"
            )
        return not broken

    def _admit(self, assignment: Assignment) -> None:
        """Give a trial to the engine, from its checkpoint if it has one."""
        checkpoint = self.keeper.find(assignment) if assignment.resumed else None
        history = list(checkpoint.history) if checkpoint else []
        if assignment.resumed:
            self.session.restore_curve(
                assignment.trial_id, {r.epoch: r.score(assignment.config.metric) for r in history}
            )
        live = Live(assignment, history)
        try:
            facts = self.engine.admit(assignment.trial_id, assignment.config, checkpoint)
        except TrialFault as error:
            self._fail(live, error.fault)
            return
        self.session.note(
            assignment.trial_id,
            TrialAttributes.parameters.entry(facts.parameters),
            TrialAttributes.device.entry(facts.device),
            TrialAttributes.precision.entry(facts.precision),
        )
        self.keeper.admitted(assignment.root)
        self.live[assignment.trial_id] = live
        if history and history[-1].last:  # killed between its last checkpoint and the news of its end
            self._finish(assignment.trial_id)

    def _advance(self) -> None:
        before, outcomes = len(self.live), self._step()
        self.session.refresh()
        for key, outcome in outcomes.items():
            if isinstance(outcome, Fault):
                self._end_faulty(key, outcome)
            else:
                self._take(key, outcome)
        if self.ahead is not None:
            last = sum(isinstance(outcome, EpochResult) and outcome.last for outcome in outcomes.values())
            self.ahead.noted(before - len(self.live) - last)

    def _step(self) -> dict[int, EpochResult | Fault]:
        """Have the engine train; while it only waits for its device, draw the trials that come next."""
        if self.ahead is not None:
            lives = self.live.values() if self.session.away_seconds == 0 else ()
            self.ahead.begin([live.assignment.config.epochs - len(live.history) for live in lives])
        start = time.perf_counter()
        try:
            outcomes = self.engine.step()
        finally:
            self.training_seconds += time.perf_counter() - start
            if self.ahead is not None:
                self.ahead.end()
        return outcomes

    def _take(self, key: int, result: EpochResult) -> None:
        live = self.live[key]
        live.history.append(result)
        self.session.report(key, result.epoch, result.score(live.assignment.config.metric))
        if result.last:
            self._finish(key)
        elif self.session.should_prune(key):
            self._describe(key)
            self._illustrate(key, complete=False)
            self.session.prune(key)
            self._drop(key)
            self._failures = None
        else:
            self.keeper.save_if_due(live.assignment.root, lambda: self.engine.snapshot(key))

    def _finish(self, key: int) -> None:
        self._describe(key)
        self._illustrate(key, complete=True)
        self.session.complete(key, self._value(key))
        self._drop(key, complete=True)
        self._failures = None

    def _value(self, key: int) -> float:
        """Return what a trial is worth."""
        config = self.live[key].assignment.config
        return final(config, self.live[key].history).score(config.metric)

    def _end_faulty(self, key: int, fault: Fault) -> None:
        live = self.live[key]
        if fault.kind == "oom" and not live.retried:
            self._retry_in_parts(key, fault)
            return
        self._note_course(key)
        if fault.kind == "diverged":
            self.session.diverge(key, fault.message)
            self._failures = None
            _log.warning("trial %d diverged: %s", live.assignment.number, fault.message)
        else:
            self._fail(live, fault)
        self._drop(key)

    def _retry_in_parts(self, key: int, fault: Fault) -> None:
        """Train a trial that ran out of memory once more, from its start, in smaller parts of the same batch."""
        live = self.live.pop(key)
        self.engine.evict(key)
        _log.warning("trial %d ran out of memory: once more in %d parts", live.assignment.number, OOM_PARTS)
        config = replace(live.assignment.config, accumulation=OOM_PARTS * live.assignment.config.accumulation)
        self.session.note(
            key,
            TrialAttributes.config.entry(config.to_dict()),
            TrialAttributes.retried_after.entry(fault.message),
        )
        self.session.restore_curve(key, {})
        self._admit(replace(live.assignment, config=config, resumed=False))
        if key in self.live:
            self.live[key].retried = True

    def _fail(self, live: Live, fault: Fault) -> None:
        """Record a failure; if nothing but this happens, stop the study and say so."""
        self.session.fail(live.assignment.trial_id, fault.kind, fault.message)
        _log.warning("trial %d: %s: %s", live.assignment.number, fault.kind, fault.message)
        if self._failures is None:
            return
        self._failures.append(re.sub(r"\d+", "N", f"{fault.kind}: {fault.message}"))
        if len(self._failures) >= ALIKE and len(set(self._failures)) == 1:
            self.session.stop_if_hopeless(f"the first trials all failed alike ({fault.kind}: {fault.message})")

    def _describe(self, key: int) -> None:
        """Note what the trial's end shows, in words that people read on the dashboard."""
        start = time.perf_counter()
        examined, config = self.engine.examine(key), self.live[key].assignment.config
        self.training_seconds += time.perf_counter() - start
        gap = examined.train_accuracy - final(config, self.live[key].history).validation_accuracy
        self._note_course(key)
        self.session.note(
            key,
            TrialAttributes.train_accuracy.entry(examined.train_accuracy),
            TrialAttributes.overfitting_gap.entry(gap),
        )

    def _note_course(self, key: int) -> None:
        history, curves = self.live[key].history, self._curves(key)
        seconds = round(sum(result.seconds for result in history), 3)
        self.session.note(
            key,
            TrialAttributes.epochs.entry(len(history)),
            TrialAttributes.seconds.entry(seconds),
            TrialAttributes.curves.entry(curves),
        )

    def _curves(self, key: int) -> dict[str, list[float]]:
        history = self.live[key].history
        figures = (
            "validation_accuracy",
            "validation_balanced_accuracy",
            "validation_macro_f1",
            "validation_loss",
            "train_accuracy",
            "train_loss",
            "seconds",
        )
        return {name: [round(getattr(result, name), 6) for result in history] for name in figures}

    def _illustrate(self, key: int, complete: bool) -> None:
        """Have pictures drawn of a trial that ends: its curves and, if it is the best so far, what it gets wrong."""
        if self.illustrator is None:
            return
        shown = self.illustrator.curves(key, self._curves(key))
        if complete:
            best = self.session.best_value()
            if best is None or self._value(key) > best:
                start = time.perf_counter()
                probabilities = self.engine.predict(key)
                self.training_seconds += time.perf_counter() - start
                shown += self.illustrator.judgement(key, probabilities)
        self.session.note(key, *shown)

    def _hand_back(self, key: int) -> None:
        live = self.live.pop(key)
        if live.history:
            self.keeper.save(live.assignment.root, lambda: self.engine.snapshot(key))
        self.session.hand_back(key)
        self.engine.evict(key)

    def _drop(self, key: int, complete: bool = False) -> None:
        """Let an ended trial go, and keep or clear its checkpoint."""
        live = self.live.pop(key)
        best, displaced = self.session.best_roots(self.keeper.policy.keep_best)
        snapshot = (lambda: self.engine.snapshot(key)) if complete else None
        self.keeper.ended(live.assignment.root, snapshot, best, displaced, self.session.unfinished_roots())
        self.engine.evict(key)
