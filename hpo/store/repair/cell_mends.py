"""What mends a cell whose value breaks the rule of its column."""

import json
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hpo import documents
from hpo.errors import HpoError
from hpo.recipe import StudyRecipe
from hpo.store.database import schema
from hpo.store.database.cells import Cell
from hpo.store.database.connect import Store
from hpo.store.record import State, StudyAttributes
from hpo.store.repair import mends

Mend = Callable[[Store, Connection], None]
_NEEDED = ("space", "recipe", "data_fingerprint", "confirms", "audits")
"""Attributes of a study without which it is another one, or none."""
_COUNTERS: dict[str, Any] = {"active_seconds": 0.0, "last_tick": None, "stop_reason": None, "revision": 0}


def mend_of(cell: Cell) -> tuple[str, Mend | None]:
    """Return what mends a cell, in words and as a function; an empty text and None where nothing does."""
    table, column = cell.table, cell.column
    if table in (schema.hpo_workers, schema.hpo_leases):
        return "workers and leases are forgotten, their trials wait", _forget_workers
    if table.name.startswith("trial"):
        return _of_trial(cell)
    if table is schema.studies and column == "study_name":
        name = f"repaired-{cell.row['study_id']}"
        return f'the study is named "{name}"', _set(cell, name)
    if table is schema.study_directions and column == "direction":
        return "the first value is maximized, the second minimized", _set(cell, _direction())
    if table in (schema.study_user_attributes, schema.study_system_attributes):
        if column != "study_id" and cell.row["key"] in _NEEDED:
            return "", None
        return "the attribute is deleted", _delete(cell)
    if table is schema.hpo_studies and column in _COUNTERS:
        return f"it is set to {_COUNTERS[column]}", _set(cell, _COUNTERS[column])
    if table is schema.hpo_studies and column == "uid":
        text = "the study gets a new one; its files stay where they are and are no longer found"
        return text, _set(cell, uuid.uuid4().hex)
    if table is schema.hpo_studies and column == "budget_json":
        return "the budget is the recipe's", partial(_take_recipes_budget, study_id=cell.row["study_id"])
    if table is schema.hpo_schema and column in ("last_study_id", "last_trial_id"):
        owner = schema.studies.c.study_id if column == "last_study_id" else schema.trials.c.trial_id
        last = sa.select(sa.func.coalesce(sa.func.max(owner), 0)).scalar_subquery()
        return "it is set to the greatest id", _set(cell, last)
    return "", None


def _of_trial(cell: Cell) -> tuple[str, Mend | None]:
    table, column, row = cell.table, cell.column, cell.row
    if table is schema.trials:
        if column == "state":
            return mends.TRIAL_FAILS, _set_then_fail(cell, State.FAIL)
        if column in ("datetime_start", "datetime_complete"):
            other = "datetime_complete" if column == "datetime_start" else "datetime_start"
            return "it is set to the other end of the trial, else deleted", _set(cell, table.c[other])
        if column == "number":
            return "it gets a number that is free", _set(cell, _free_number())
        return "the row is deleted", _delete(cell)
    attributes = (schema.trial_user_attributes, schema.trial_system_attributes)
    if column == "trial_id" or cell.trial is None or (table in attributes and row["key"] != "config"):
        return "the row is deleted", _delete(cell)
    why = f"{table.name}.{column} was not {cell.rule}"
    return f"{mends.TRIAL_FAILS}; the row is deleted", _delete_then_fail(cell, why)


def _same_row(cell: Cell) -> sa.ColumnElement[bool]:
    [key] = cell.table.primary_key
    # Without its type: the row's value is as the database gave it.
    return sa.ColumnElement.__eq__(sa.column(key.name), cell.row[key.name])


def _set(cell: Cell, value: Any) -> Mend:
    return partial(mends.set_value, table=cell.table, where=_same_row(cell), column=cell.column, value=value)


def _delete(cell: Cell) -> Mend:
    return partial(mends.delete_rows, table=cell.table, where=_same_row(cell))


def _set_then_fail(cell: Cell, value: Any) -> Mend:
    def mend(store: Store, connection: Connection) -> None:
        _set(cell, value)(store, connection)
        why = f"{cell.table.name}.{cell.column} was not {cell.rule}"
        mends.fail_trial(store, connection, trial_id=cell.row["trial_id"], why=why)

    return mend


def _delete_then_fail(cell: Cell, why: str) -> Mend:
    def mend(store: Store, connection: Connection) -> None:
        _delete(cell)(store, connection)
        mends.fail_trial(store, connection, trial_id=cell.row["trial_id"], why=why)

    return mend


def _direction() -> sa.ColumnElement[str]:
    table = schema.study_directions
    first = sa.literal("MAXIMIZE", table.c.direction.type)
    return sa.case((table.c.objective == 0, first), else_=sa.literal("MINIMIZE", table.c.direction.type))


def _free_number() -> Any:
    """Return a number above all; which number fits the trial's place is found once all numbers are numbers."""
    other = schema.trials.alias()
    highest = sa.func.coalesce(sa.func.max(other.c.number), 0) + 1
    # SQLite alone takes other values: there, they compare as greater than any number.
    return sa.select(highest).where(other.c.number >= 0, other.c.number < 2**31).scalar_subquery()


def _take_recipes_budget(store: Store, connection: Connection, *, study_id: int) -> None:
    """Give a study the budget of its recipe; nothing, if that cannot be read either: it is a fault of its own."""
    attributes = schema.study_user_attributes.c
    of_study = sa.and_(attributes.study_id == study_id, attributes.key == StudyAttributes.recipe.key)
    text = connection.execute(sa.select(attributes.value_json).where(of_study)).scalar()
    try:
        recipe = documents.check(StudyRecipe, json.loads(text or ""), "recipe")
    except (HpoError, ValueError, TypeError, RecursionError):
        return
    table = schema.hpo_studies
    same = table.c.study_id == study_id
    connection.execute(sa.update(table).where(same).values(budget_json=recipe.budget.model_dump_json()))


def _forget_workers(store: Store, connection: Connection) -> None:
    for table in (schema.hpo_leases, schema.hpo_workers):
        connection.execute(sa.delete(table))
