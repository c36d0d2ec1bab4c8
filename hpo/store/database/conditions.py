"""Conditions on `schema.trials`, for the WHERE clauses of queries."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hpo.store.attributes import Attribute
from hpo.store.database import schema
from hpo.store.record import State, TrialAttributes

_TABLES = {"user": schema.trial_user_attributes, "system": schema.trial_system_attributes}


def is_of(study_id: int, states: Iterable[State] | None = None) -> sa.ColumnElement[bool]:
    """The condition that a trial belongs to a study and, if any are given, is in one of the states."""
    columns = schema.trials.c
    of_study = columns.study_id == study_id
    return of_study if states is None else sa.and_(of_study, columns.state.in_(list(states)))


def has(attribute: Attribute[Any]) -> sa.ColumnElement[bool]:
    """The condition that a trial has an attribute."""
    table = _TABLES[attribute.kind]
    of_trial = sa.and_(table.c.trial_id == schema.trials.c.trial_id, table.c.key == attribute.key)
    # Not to the table of attributes of the query around it, which may read them.
    return sa.exists().where(of_trial).correlate(schema.trials)


def is_excused() -> sa.ColumnElement[bool]:
    """The condition that a failed trial does not count as a failure."""
    return has(TrialAttributes.excused)


def is_outside() -> sa.ColumnElement[bool]:
    """The condition that the study's space, changed since, cannot draw a trial."""
    return has(TrialAttributes.outside)


def count(connection: Connection, condition: sa.ColumnElement[bool]) -> int:
    """Return how many rows fulfil a condition."""
    return int(connection.execute(sa.select(sa.func.count()).where(condition)).scalar_one())
