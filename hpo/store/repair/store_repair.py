"""A store examined as a whole and, on request, mended: after a copy, while nobody works on it."""

import sqlite3
import time
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from hpo.errors import StoreError
from hpo.store.database import schema
from hpo.store.database.connect import Store
from hpo.store.database.outages import is_transient, reason
from hpo.store.database.url import shown
from hpo.store.repair.copies import copy_store, file_faults, mend_file
from hpo.store.repair.faults import Fault, find_faults

ROUNDS = 8
"""Rounds of finding and mending: what rests on broken cells is seen once they are mended."""


@dataclass
class Repair:
    """What was mended in a store."""

    copy: str = ""
    """Where the copy is that was made before; empty where nothing had to be mended."""
    mended: list[Fault] = field(default_factory=list)
    left: list[Fault] = field(default_factory=list)
    """What could not be mended."""
    moved_rows: int = 0
    """Rows that were moved from a damaged file into a new one."""


def examine(store: Store) -> list[Fault]:
    """Return all faults of a store. Raises: StoreUnavailableError and StoreError where it cannot be read at all."""
    rows = "its indexes are built anew, or what can be read is moved into a new file"
    if broken := file_faults(store):
        return [Fault(f"{shown(store.url)}: SQLite's own check found: {line}", rows) for line in broken]
    try:
        with store.engine.connect() as connection:
            if not store.is_sqlite:  # a study at work changes between two statements
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                return find_faults(connection)
    except (SQLAlchemyError, sqlite3.Error) as error:
        if is_transient(error):
            raise
        raise StoreError(f"{shown(store.url)}: cannot be examined: {reason(error)}. Restore a backup.") from error


def repair(store: Store) -> Repair:
    """Mend what can be mended, after a copy. Raises: StoreError if workers are alive, or if no copy can be made."""
    done = Repair(left=examine(store))
    if not any(fault.mending for fault in done.left):
        return done
    broken = file_faults(store)
    _check_at_rest(store)
    done.copy = copy_store(store)
    if broken:
        done.moved_rows = mend_file(store)
        done.mended += done.left
        done.left = examine(store)
    for _ in range(ROUNDS):
        if not any(fault.mend for fault in done.left):
            break
        with store.engine.connect() as connection:
            _mend(store, connection, done)
        done.left = examine(store)
    return done


def _mend(store: Store, connection: Connection, done: Repair) -> None:
    """Mend each fault that can be, all in one transaction."""
    from hpo.store.database.engine import WRITES

    connection = connection.execution_options(**{WRITES: True})
    with connection.begin():
        for fault in done.left:
            if fault.mend is not None:
                fault.mend(store, connection)
                done.mended.append(fault)
        table = schema.hpo_studies  # what readers keep of finished trials is read anew
        connection.execute(sa.update(table).values(revision=table.c.revision + 1))


def _check_at_rest(store: Store) -> None:
    """Check that no worker's beat changes. Raises: StoreError."""
    before = _beats(store)
    if not before:
        return
    time.sleep(schema.WATCH_SECONDS)
    alive = sum(beat != before.get(worker) for worker, beat in _beats(store).items())
    if alive:
        raise StoreError(f"{shown(store.url)}: must be at rest, got {alive} worker(s) at work. Stop them first.")


def _beats(store: Store) -> dict[object, object]:
    workers = sa.text("SELECT worker_id, beat FROM hpo_workers")
    try:
        with store.engine.connect() as connection, connection.begin():
            return {row[0]: row[1] for row in connection.execute(workers)}
    except (SQLAlchemyError, sqlite3.Error) as error:
        if is_transient(error):
            raise
        return {}  # the table cannot be read: no worker can be at work
