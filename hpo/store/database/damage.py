"""Damage in a store: the first cell whose value breaks the rule of its column.

Nothing is checked in advance, for that would cost every command a scan of the store: a store is examined once
something has failed on what was read from it. SQLite takes any value in any column, and a file can be edited by hand.
"""

import sqlite3
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from hpo.errors import StoreError
from hpo.store.database import schema
from hpo.store.database.cells import SYMPTOMS, broken_cells
from hpo.store.database.outages import is_transient, reason
from hpo.store.database.url import shown
from hpo.store.record import State

REMEDY = "Mend it with `hpo doctor store --repair`, or restore a backup of the store."


def explain(
    engine: Engine, error: Exception, symptoms: tuple[type[Exception], ...] = (SQLAlchemyError, *SYMPTOMS)
) -> StoreError | None:
    """Return the damage of a store that an error comes from; None if the error passes, or comes from something else."""
    if not isinstance(error, symptoms):
        return None
    if is_transient(error):
        return None
    where, cell = shown(engine.url), None
    failed: Exception = error
    try:
        with engine.connect() as connection, connection.begin():
            cell = find(connection)
    except (SQLAlchemyError, sqlite3.Error) as another:
        failed = another
    if cell is not None:
        return StoreError(f"{where}: {cell}. {REMEDY}")
    if not isinstance(failed, SQLAlchemyError | sqlite3.Error) or isinstance(failed, IntegrityError):
        return None
    if is_transient(failed):
        return None
    return of_file(engine.url, failed) or StoreError(f"{where}: cannot be used: {reason(failed)}.")


def of_file(url: URL, error: Exception) -> StoreError | None:
    """Return the error of a database file that is damaged as a whole; None if it is not."""
    text = reason(error)
    if not any(words in text for words in ("malformed", "corrupt")):
        return None
    advice = "Restore a backup, or save what is readable with `hpo doctor store --repair`."
    return StoreError(f"{shown(url)}: is damaged: {text}. {advice}")


def find(connection: Connection) -> str | None:
    """Return which cell of a store breaks its rule, as *study, trial: table.column must be, got*; None if none does."""
    for cell in broken_cells(connection):
        return str(cell)
    studies = schema.studies.c
    names = {
        row.study_id: row.study_name for row in connection.execute(sa.select(studies.study_id, studies.study_name))
    }
    return _miscounted(connection, names)


def _miscounted(connection: Connection, names: dict[Any, Any]) -> str | None:
    """Return which study's trials are not numbered from 0 on, or which complete trial has no value."""
    columns, values = schema.trials.c, schema.trial_values.c
    for study_id, name in names.items():
        of_study = columns.study_id == study_id
        numbers = connection.execute(sa.select(columns.number).where(of_study).order_by(columns.number)).scalars()
        for expected, number in enumerate(numbers):
            if number != expected:
                return f'study "{name}": trials.number must count from 0 without gaps, got {number} for {expected}'
        valued = sa.select(values.trial_id).where(values.objective == 0)
        complete = sa.and_(of_study, columns.state == State.COMPLETE, columns.trial_id.not_in(valued))
        without = connection.execute(sa.select(columns.number).where(complete).limit(1)).scalar()
        if without is not None:
            return f'study "{name}", trial {without}: trial_values.value must be there for a complete trial, got none'
    return None
