"""A worker's link to the store: it makes the worker known, waits for a store that is away, and stops studies."""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.engine import Connection

from hpo.store import studies
from hpo.store.database.connect import Store
from hpo.store.database.retry import retry_while_unavailable
from hpo.store.database.trial_rows import Changes
from hpo.store.leases import claims, stopping
from hpo.store.leases.claims import Presence, Watch
from hpo.store.leases.outbox import Outbox, WorkerLost
from hpo.store.leases.stopping import StopReason
from hpo.store.studies import StudyRecord

T = TypeVar("T")

LOOK_SECONDS = 1.0
"""How often a worker looks at what the other workers do."""
LOOKS_PER_SECOND = 16
"""Looks of all workers of a study together, at most: each reads about all the others. So with more workers than this,
each looks less often."""


class StoreLink:
    """One worker's link to one study. Use as a context; leaving releases the trials that the worker still has."""

    def __init__(
        self, store: Store, study: StudyRecord, description: dict[str, Any], grace: float = claims.GRACE_SECONDS
    ) -> None:
        """`description` tells others about this worker: host, process, device."""
        self.store, self.study = store, study
        self.worker_id = uuid.uuid4().hex
        self.stopped = threading.Event()
        """Set to make the link stop waiting for a store that is away."""
        self.outbox = Outbox(store, study, self.worker_id, description)
        self.presence = Presence(self.worker_id)
        self._watch = Watch(grace)
        self._contexts = contextlib.ExitStack()

    def __enter__(self) -> "StoreLink":
        with contextlib.ExitStack() as contexts:
            contexts.enter_context(self.presence)
            self.retry(self.outbox.start)
            contexts.callback(self._leave)
            self._contexts = contexts.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._contexts.close()

    def _leave(self) -> None:
        self.outbox.close()
        if self.outbox.failure is None:
            self.transact(lambda c: claims.release(self.store, c, self.study.study_id, self.worker_id))

    def check(self) -> None:
        """Raise an error of the background thread. Raises: WorkerLost, StoreError."""
        if self.outbox.failure is not None:
            raise self.outbox.failure

    @property
    def away_seconds(self) -> float:
        """For how long the store has not answered; 0 while it does."""
        since = self.outbox.away_since
        return time.monotonic() - since if since is not None else 0.0

    def retry(self, action: Callable[[], T]) -> T:
        """Do something with the store, again while it is away. Raises: StoreError after too long."""
        return retry_while_unavailable(action, self.stopped)

    def read(self, query: Callable[[Connection], T]) -> T:
        """Return what a query gives in a transaction that only reads. Raises: StoreError."""

        def attempt() -> T:
            with self.store.read() as connection:
                return query(connection)

        return self.retry(attempt)

    def transact(self, action: Callable[[Connection], T]) -> T:
        """Write pending changes and do something more in the same transaction. Raises: WorkerLost, StoreError."""
        try:
            return self.retry(lambda: self.outbox.transact(action))
        except WorkerLost as error:
            self.outbox.failure = error
            raise

    def put(self, changes: Changes) -> None:
        """Have changes written with the next beat."""
        self.outbox.put(changes)

    def flush(self) -> None:
        """Write pending changes now. Raises: WorkerLost, StoreError."""
        self.transact(lambda connection: None)

    def describe_worker(self, facts: dict[str, Any]) -> None:
        """Add to what others can read about this worker; it is written with the next beat."""
        self.outbox.state |= facts

    @property
    def look_seconds(self) -> float:
        """How often this worker looks at what the others do, in seconds."""
        return max(LOOK_SECONDS, self._watch.workers / LOOKS_PER_SECOND)

    def reap(self) -> list[int]:
        """Take over the trials of dead workers, which then wait to be resumed; return the numbers they had."""
        if self.away_seconds > 0:
            self._watch.reset()
            return []
        reaped = self.retry(lambda: claims.reap_dead(self.store, self.study.study_id, self._watch, self.worker_id))
        self.outbox.workers = 1 + self._watch.workers
        return reaped

    def stop_reason(self) -> StopReason | None:
        """Return which of its limits the study has reached; None if none."""
        return self.read(lambda connection: stopping.over(connection, self.study.study_id))

    def stop_study(self, reason: str) -> None:
        """Have all workers of the study stop, with this reason."""
        self.flush()
        self.retry(lambda: studies.stop(self.store, self.study, reason))

    def stop_study_without_results(self, reason: str) -> None:
        """Have all workers of the study stop, with this reason, if none of its trials has finished."""
        self.flush()
        if self.read(lambda connection: stopping.count_finished(connection, self.study.study_id)) == 0:
            self.retry(lambda: studies.stop(self.store, self.study, reason))
