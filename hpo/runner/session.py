"""A worker's hold on a study: claim trials, report, prune, finish. What the runner knows of the store."""

import heapq
import itertools
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from hpo.config import WORST, TrialConfig
from hpo.constraints import Costs
from hpo.optuna_compat import trial_id as id_of_trial
from hpo.store import studies
from hpo.store.attributes import Entry
from hpo.store.database import trial_rows
from hpo.store.database.connect import Store, patiently
from hpo.store.database.trial_rows import Changes, root_of
from hpo.store.leases import claims, stopping
from hpo.store.leases.claims import Claimed, NothingToClaim, Presence, Watch
from hpo.store.leases.outbox import Outbox, WorkerLost
from hpo.store.leases.stopping import StopReason
from hpo.store.record import Failure, State, TrialAttributes
from hpo.store.studies import StudyRecord
from hpo.strategy.cached_storage import CachedStorage, awaits_verdict, is_infeasible
from hpo.strategy.study_search import StudySearch

T = TypeVar("T")

REFRESH_SECONDS = 1.0
"""How old a worker's picture of the other workers' trials may be."""


@dataclass(frozen=True)
class Assignment:
    """A trial to run: its config, and whether it goes on from where another run of it stopped."""

    trial_id: int
    number: int
    root: int
    """The number under which it first began: its checkpoints go by it."""
    config: TrialConfig
    resumed: bool


class Session:
    """One worker at work on one study. Use as a context; leaving hands back the trials still in hand."""

    def __init__(
        self, store: Store, study: StudyRecord, about: dict[str, Any], grace: float = claims.GRACE_SECONDS
    ) -> None:
        """`about` tells others of this worker: host, process, device."""
        self.store, self.study = store, study
        self.worker_id = uuid.uuid4().hex
        self.stopped = threading.Event()
        """Set to have the session stop waiting for a store that is away."""
        self._outbox = Outbox(store, study, self.worker_id, about)
        self._mirror = CachedStorage(study.study_id, study.name, self._outbox.put, study.recipe.cost is not None)
        self._search = StudySearch(self._mirror, study.effective_space, study.recipe)
        self._presence = Presence(self.worker_id)
        self._watch = Watch(grace)
        self._held: set[int] = set()
        self._refreshed = 0.0

    def __enter__(self) -> "Session":
        self._presence.__enter__()
        try:
            patiently(self._outbox.start, self.stopped)
            self.refresh(at_once=True)
        except BaseException:
            self._presence.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._outbox.close()
        if self._outbox.failure is None:
            release = claims.release
            self._transact(lambda c: release(self.store, c, self.study.study_id, self.worker_id))
        self._presence.__exit__()

    def check(self) -> None:
        """Raise what has gone wrong in the background. Raises: WorkerLost, StoreError."""
        if self._outbox.failure is not None:
            raise self._outbox.failure

    @property
    def away_seconds(self) -> float:
        """For how long the store has not answered; 0 while it does."""
        since = self._outbox.away_since
        return time.monotonic() - since if since is not None else 0.0

    def _transact(self, action: Callable[[Connection], T]) -> T:
        try:
            return patiently(lambda: self._outbox.transact(action), self.stopped)
        except WorkerLost as error:
            self._outbox.failure = error
            raise

    def refresh(self, at_once: bool = False) -> None:
        """Take in what other workers have done, at most once a second."""
        if not at_once and time.monotonic() - self._refreshed < REFRESH_SECONDS:
            return

        def read() -> None:
            with self.store.read() as connection:
                self._mirror.refresh(connection)

        patiently(read, self.stopped)
        self._refreshed = time.monotonic()

    def reap(self) -> list[int]:
        """Take the trials of workers that are gone, to be gone on with; return the numbers they had."""

        if self.away_seconds > 0:
            self._watch.reset()
            return []
        return patiently(
            lambda: claims.reap_dead(self.store, self.study.study_id, self._watch, self.worker_id), self.stopped
        )

    def claim(self, count: int) -> list[Assignment] | NothingToClaim | StopReason:
        """Claim up to `count` trials, draw the configs of new ones, and store them before they are trained.

        Raises: WorkerLost, StoreError.
        """
        study_id, worker_id = self.study.study_id, self.worker_id

        def undrawn(connection: Connection) -> int | None:
            if self._search.is_endless:
                return None
            self._mirror.refresh(connection)
            return self._search.undrawn()

        claimed = self._transact(lambda c: claims.claim(self.store, c, study_id, worker_id, count, self._held, undrawn))
        if isinstance(claimed, NothingToClaim | StopReason):
            return claimed
        self.refresh(at_once=True)

        known = [c.trial_id for c in claimed if not c.fresh]

        def read() -> list[FrozenTrial]:
            with self.store.read() as connection:
                return trial_rows.load_some(connection, known)

        loaded = {id_of_trial(t): t for t in patiently(read, self.stopped)} if known else {}
        assignments = [
            self._assign(c, loaded.get(c.trial_id) or trial_rows.empty(c.trial_id, c.number)) for c in claimed
        ]
        self._transact(lambda c: None)
        return assignments

    def _assign(self, claimed: Claimed, trial: FrozenTrial) -> Assignment:
        self._held.add(claimed.trial_id)
        self._mirror.adopt(trial)
        attributes = TrialAttributes.of(trial)
        resumed = attributes.config is not None
        if resumed:
            config = attributes.training_config(claimed.number)
        else:
            config = self._search.draw(claimed.trial_id, claimed.number)
            self.note(claimed.trial_id, TrialAttributes.config.entry(config.to_dict()))
        return Assignment(claimed.trial_id, claimed.number, root_of(trial), config, resumed)

    def note(self, trial_id: int, *entries: Entry) -> None:
        """Set attributes of a trial."""
        self._mirror.note(trial_id, *entries)

    def restore_curve(self, trial_id: int, values: dict[int, float]) -> None:
        """Put a resumed trial's curve in the place of whatever was reported of it."""
        self._mirror.set_curve(trial_id, values)

    def over(self) -> StopReason | None:
        """Say whether the study has reached one of its limits."""

        def ask() -> StopReason | None:
            with self.store.read() as connection:
                return stopping.over(connection, self.study.study_id)

        return patiently(ask, self.stopped)

    def report(self, trial_id: int, epoch: int, value: float) -> None:
        """Report the value after an epoch."""
        self._mirror.set_trial_intermediate_value(trial_id, epoch, value)

    def should_prune(self, trial_id: int) -> bool:
        """Say whether a trial is to end after its latest report, given what is known of the others.

        A baseline is compared with, but never ends early: it is what the winner shall be measured against.
        """
        prunes = self._search.should_prune(trial_id)
        return prunes and TrialAttributes.of(self._mirror.get_trial(trial_id)).baseline is None

    def complete(self, trial_id: int, value: float) -> None:
        """End a trial that ran to its last epoch."""
        self._end(trial_id, TrialState.COMPLETE, value)

    def prune(self, trial_id: int) -> None:
        """End a trial early; its value is the last one reported."""
        trial = self._mirror.get_trial(trial_id)
        last = trial.intermediate_values[trial.last_step] if trial.last_step is not None else None
        self._end(trial_id, TrialState.PRUNED, last)

    def diverge(self, trial_id: int, message: str) -> None:
        """End a trial whose loss was not finite: pruned, with the worst value, so that the sampler learns."""
        self._note_failure(trial_id, "diverged", message)
        self.note(trial_id, TrialAttributes.diverged.entry(True))
        trial, worst = self._mirror.get_trial(trial_id), WORST[self.study.metric]
        self._mirror.set_trial_intermediate_value(trial_id, (trial.last_step or 0) + 1, worst)
        self._end(trial_id, TrialState.PRUNED, worst)

    def knows_costs(self, trial_id: int) -> bool:
        """Say whether a trial's costs have been found out, perhaps under another number."""
        trial = self._mirror.get_trial(trial_id)
        judged = bool(trial.constraints) or not self.study.space.constraints.limits
        return judged and (self.study.recipe.cost is None or TrialAttributes.of(trial).cost is not None)

    def note_costs(self, trial_id: int, costs: Costs) -> None:
        """Note what a trial's untrained network costs, and by how much it exceeds what the space allows."""
        excesses = self.study.space.constraints.excess(costs).items()
        limits = [TrialAttributes.constraints.entry(f"max_{name}", excess) for name, excess in excesses]
        self.note(trial_id, TrialAttributes.costs.entry(costs), *limits)
        cost = self.study.recipe.cost
        if cost is not None and cost in costs:
            self.note(trial_id, TrialAttributes.cost.entry(costs[cost]))

    def reject(self, trial_id: int, message: str) -> int:
        """End a trial that breaks a constraint before it was trained: it costs no budget, and the sampler learns of it.

        Returns how many draws of the study, the latest ones, were rejected in a row.
        """
        excused = TrialAttributes.excused.entry(f"infeasible: {message}")
        self.note(trial_id, TrialAttributes.infeasible.entry(message), excused)
        self._end(trial_id, TrialState.FAIL, None)
        drawn = [t for t in self._mirror.everything() if t.state != TrialState.WAITING and not awaits_verdict(t)]
        return sum(1 for _ in itertools.takewhile(is_infeasible, reversed(drawn)))

    def stop(self, reason: str) -> None:
        """Have all workers stop, with this reason."""
        self._transact(lambda connection: None)
        studies.stop(self.store, self.study, reason)

    def fail(self, trial_id: int, kind: str, message: str) -> None:
        """End a trial that could not be trained."""
        self._note_failure(trial_id, kind, message)
        self._end(trial_id, TrialState.FAIL, None)

    def stop_if_hopeless(self, reason: str) -> None:
        """Have all workers stop, with this reason, if no trial of the study has finished."""
        self._transact(lambda connection: None)
        with self.store.read() as connection:
            finished = stopping.count_finished(connection, self.study.study_id)
        if finished == 0:
            studies.stop(self.store, self.study, reason)

    def best_value(self) -> float | None:
        """Return the best value of the complete trials."""
        complete = self._mirror.get_all_trials(self.study.study_id, deepcopy=False, states=(TrialState.COMPLETE,))
        return max((trial.values[0] for trial in complete), default=None)

    def describe_worker(self, facts: dict[str, Any]) -> None:
        """Let others know more of this worker: it goes with the next beat."""
        self._outbox.state |= facts

    def flush(self) -> None:
        """Write what is still to be written. Raises: WorkerLost, StoreError."""
        self._transact(lambda connection: None)

    def best_roots(self, count: int) -> tuple[list[int], list[int]]:
        """Return the roots of the best complete trials, best first, and of the one that comes after them."""
        complete = self._mirror.get_all_trials(self.study.study_id, deepcopy=False, states=(TrialState.COMPLETE,))
        ranked = heapq.nsmallest(count + 1, complete, key=lambda t: (-t.values[0], t.number))
        roots = [root_of(trial) for trial in ranked]
        return roots[:count], roots[count:]

    def importances(self) -> dict[str, float]:
        """Return how much each parameter matters, the most important first."""
        return self._search.importances()

    def unfinished_roots(self) -> set[int]:
        """Return the roots of the trials that somebody runs or will go on with."""
        states = (TrialState.RUNNING, TrialState.WAITING)
        open_trials = self._mirror.get_all_trials(self.study.study_id, deepcopy=False, states=states)
        return {root_of(trial) for trial in open_trials}

    def hand_back(self, trial_id: int) -> None:
        """Give up a trial so that whoever claims it next goes on from its checkpoint."""
        self._held.discard(trial_id)
        self._outbox.put(Changes(states={trial_id: (State.WAITING, ())}))
        self._mirror.disown(trial_id)

    def _note_failure(self, trial_id: int, kind: str, message: str) -> None:
        self.note(trial_id, TrialAttributes.failure.entry(Failure(kind, message)))

    def _end(self, trial_id: int, state: TrialState, value: float | None) -> None:
        self._held.discard(trial_id)
        self._search.tell(trial_id, state, value)
