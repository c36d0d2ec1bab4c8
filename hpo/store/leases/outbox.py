"""A worker's pending changes, written to the store in one short transaction a second (of many workers less often).

A separate thread writes them, renews the worker's lease with each transaction, and retries while the store is
away: training does not wait. Every transaction first checks that the worker is still registered; a worker that others
have declared dead (it was suspended, its network failed) learns so here and writes nothing more.
"""

import json
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from hpo.errors import StoreError
from hpo.store import studies
from hpo.store.database import creation, schema, trial_rows
from hpo.store.database.connect import Store
from hpo.store.database.outages import is_transient, reason
from hpo.store.database.retry import OUTAGE_PATIENCE
from hpo.store.database.trial_rows import Changes
from hpo.store.database.url import shown
from hpo.store.studies import StudyRecord

T = TypeVar("T")

BEAT_SECONDS = 1.0
BEATS_PER_SECOND = 64
"""Beats of all workers of a study together, at most: with more workers, each writes less often."""
TICK_CAP = 5.0
"""Longest time between two beats, in seconds, that counts as working time of a study; no worker waits longer."""


class WorkerLost(Exception):
    """Other workers have declared this worker dead and taken over its trials."""


class Outbox:
    """The pending changes of one worker, and the thread that writes them."""

    def __init__(self, store: Store, study: StudyRecord, worker_id: str, state: dict[str, Any]) -> None:
        self.store, self.study, self.worker_id = store, study, worker_id
        self.state = state
        """What others can read about this worker: host, process, device, memory."""
        self.failure: Exception | None = None
        """Why the thread has ended early: WorkerLost, or StoreError after too long an outage."""
        self.away_since: float | None = None
        """When the store stopped answering, by the monotonic clock."""
        self.workers = 1
        """Number of the study's workers, about."""
        self._pending = Changes()
        self._pending_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        """Register the worker and start.

        Raises: StoreError if a newer hpo has upgraded the store, or the study was deleted or has another space.
        """
        row = {
            "worker_id": self.worker_id,
            "study_id": self.study.study_id,
            "beat": 0,
            "state_json": json.dumps(self.state),
        }
        with self.store.write() as connection:
            held = sa.select(schema.hpo_schema.c.revision).with_for_update(read=True)  # no upgrade until this ends
            creation.check_revisions(self.store.url, (schema.OPTUNA_REVISION, connection.execute(held).scalar()))
            uid = sa.select(schema.hpo_studies.c.uid).where(schema.hpo_studies.c.study_id == self.study.study_id)
            if connection.execute(uid).scalar() != self.study.uid:
                raise StoreError(f'{shown(self.store.url)}: study "{self.study.name}" has been deleted.')
            if studies.space_of(connection, self.study.study_id, self.study.name) != self.study.space:
                raise StoreError(f'Study "{self.study.name}" was given another space. Restart this worker.')
            connection.execute(sa.insert(schema.hpo_workers), row)
        self._thread.start()

    def put(self, changes: Changes) -> None:
        """Add changes, to be written with the next beat."""
        with self._pending_lock:
            self._pending.merge(changes)

    def flush(self) -> None:
        """Write pending changes now. Raises: WorkerLost, SQLAlchemyError."""
        self.transact(lambda connection: None)

    def transact(self, action: Callable[[Connection], T]) -> T:
        """Write pending changes and do something more in the same transaction; return the result of that.

        Raises: WorkerLost, SQLAlchemyError; then all changes are pending again.
        """
        with self._write_lock:
            with self._pending_lock:
                sent, self._pending = self._pending, Changes()
            try:
                with self.store.write() as connection:
                    self._check_registered(connection)
                    trial_rows.write(self.store, connection, sent)
                    result = action(connection)
                    tick(self.store, connection, self.study.study_id)
            except BaseException:
                with self._pending_lock:
                    sent.merge(self._pending)
                    self._pending = sent
                raise
            self.away_since = None
            return result

    def _check_registered(self, connection: Connection) -> None:
        workers = schema.hpo_workers
        beat = sa.update(workers).where(workers.c.worker_id == self.worker_id)
        updated = connection.execute(beat.values(beat=workers.c.beat + 1, state_json=json.dumps(self.state)))
        if updated.rowcount == 0:
            raise WorkerLost(self.worker_id)

    def _run(self) -> None:
        while not self._closing.wait(min(TICK_CAP, max(BEAT_SECONDS, self.workers / BEATS_PER_SECOND))):
            try:
                self.flush()
            except (WorkerLost, StoreError) as error:
                self.failure = error
                return
            except SQLAlchemyError as error:
                now = time.monotonic()
                self.away_since = self.away_since or now
                if not is_transient(error) or now - self.away_since > OUTAGE_PATIENCE:
                    self.failure = StoreError(f"the store does not answer: {reason(error)}.")
                    return

    def close(self) -> None:
        """End the thread; pending changes are not written."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()


def tick(store: Store, connection: Connection, study_id: int) -> None:
    """Advance a study's clock of working time, at most once a second, by the database's own clock."""
    studies = schema.hpo_studies
    if store.is_sqlite:
        now: sa.ColumnElement[Any] = (sa.func.julianday("now") - 2440587.5) * 86400.0
    else:
        now = sa.func.extract("epoch", sa.func.clock_timestamp())
    since = now - sa.func.coalesce(studies.c.last_tick, now)
    passed = sa.case((since < 0.0, 0.0), (since > TICK_CAP, TICK_CAP), else_=since)
    due = sa.or_(studies.c.last_tick.is_(None), sa.func.abs(now - studies.c.last_tick) >= 1.0)
    connection.execute(
        sa.update(studies)
        .where(studies.c.study_id == study_id, due)
        .values(active_seconds=studies.c.active_seconds + passed, last_tick=now)
    )
