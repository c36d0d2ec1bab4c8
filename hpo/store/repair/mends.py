"""What mends a store's rows, within a transaction that writes."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hpo.store.database import schema, trial_rows
from hpo.store.database.connect import Store
from hpo.store.record import Failure, State, TrialAttributes

TRIAL_FAILS = "the trial fails, and another runs in its place"


def delete_rows(store: Store, connection: Connection, *, table: sa.TableClause, where: sa.ColumnElement[bool]) -> None:
    """Delete rows of a table."""
    connection.execute(sa.delete(table).where(where))


def set_value(
    store: Store, connection: Connection, *, table: sa.Table, where: sa.ColumnElement[bool], column: str, value: Any
) -> None:
    """Give a column of some rows a value, or an expression."""
    connection.execute(sa.update(table).where(where).values({column: value}))


def fail_trial(store: Store, connection: Connection, *, trial_id: int, why: str) -> None:
    """Make a trial a failed one that counts neither as finished nor as a failure."""
    changes = trial_rows.Changes(states={trial_id: (State.FAIL, ())})
    message = f"its record was damaged: {why}"
    changes.note(
        trial_id, TrialAttributes.failure.entry(Failure("error", message)), TrialAttributes.excused.entry(message)
    )
    trial_rows.write(store, connection, changes)


def set_waiting(store: Store, connection: Connection, *, trial_id: int) -> None:
    """Have a trial wait for a worker."""
    trial_rows.set_state(store, connection, trial_id, State.WAITING)


def renumber(store: Store, connection: Connection, *, study_id: int, trial_id: int, below: int | None) -> None:
    """Give a trial the greatest free number below one; the next after all others, where there is none or no limit."""
    trials = schema.trials
    others = sa.select(trials.c.number).where(trials.c.study_id == study_id, trials.c.trial_id != trial_id)
    numbers = set(connection.execute(others).scalars())
    free = [number for number in range(below or 0) if number not in numbers]
    after = 1 + max((number for number in numbers if number < len(numbers) + 1000), default=-1)
    same = trials.c.trial_id == trial_id
    number = free[-1] if free else after
    connection.execute(sa.update(trials).where(same).values(number=number))


def add_lost(store: Store, connection: Connection, *, study_id: int, numbers: Sequence[int]) -> None:
    """Add failed trials with the numbers of lost ones."""
    trials = schema.trials
    for number in numbers:
        row: dict[str, Any] = {"study_id": study_id, "number": number, "state": State.FAIL}
        row |= {"datetime_start": trial_rows.now(), "datetime_complete": trial_rows.now()}
        if store.is_sqlite:
            row["trial_id"] = trial_rows.fresh_id(connection, trials.c.trial_id, schema.hpo_schema.c.last_trial_id)
        trial_id = connection.execute(sa.insert(trials).values(row).returning(trials.c.trial_id)).scalar_one()
        fail_trial(store, connection, trial_id=trial_id, why="its rows were lost")
