"""Damage in a store: the first cell whose value breaks the rule of its column.

Nothing is checked in advance, for that would cost every command a scan of the store: a store is examined once
something has failed on what was read from it. SQLite takes any value in any column, and a file can be edited by hand.
"""

import json
import math
import re
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from hpo.errors import HpoError, StoreError
from hpo.store.attributes import Attribute, AttributeGroup, Attributes
from hpo.store.database import schema
from hpo.store.database.outages import is_transient, reason
from hpo.store.database.url import shown
from hpo.store.record import State, StudyAttributes, TrialAttributes

REMEDY = "Correct it, or restore a backup of the store."
SYMPTOMS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RuntimeError)
"""What fails where a value is not what it should be; RuntimeError includes too deep a recursion."""
_LARGEST = 2**53
_OPTIONAL = frozenset(("datetime_start", "datetime_complete", "last_tick", "stop_reason"))
_JSON = frozenset(("value_json", "budget_json", "state_json", "distribution_json"))
_TABLES = (
    schema.alembic_version,
    schema.hpo_schema,
    schema.studies,
    schema.study_directions,
    schema.study_user_attributes,
    schema.study_system_attributes,
    schema.hpo_studies,
    schema.trials,
    schema.trial_params,
    schema.trial_values,
    schema.trial_intermediate_values,
    schema.trial_user_attributes,
    schema.trial_system_attributes,
    schema.hpo_workers,
    schema.hpo_leases,
)
"""In this order, so that studies and trials have their names before what belongs to them is read."""

Row = dict[str, Any]


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
    advice = f"Restore a backup, or save what is readable: sqlite3 {url.database} .recover"
    return StoreError(f"{shown(url)}: is damaged: {text}. {advice}")


def find(connection: Connection) -> str | None:
    """Return which cell of a store breaks its rule, as *study, trial: table.column must be, got*; None if none does."""
    names: dict[Any, Any] = {}
    numbers: dict[Any, tuple[Any, Any]] = {}
    for table in _TABLES:
        for row in _rows(connection, table):
            if table is schema.studies:
                names[row["study_id"]] = row["study_name"]
            if table is schema.trials:
                numbers[row["trial_id"]] = (row["study_id"], row["number"])
            study, number = numbers.get(row.get("trial_id"), (row.get("study_id"), None))
            owner = f'study "{names[study]}"' if study in names else ""
            owner += f", trial {number}" if number is not None and table is not schema.studies else ""
            for column, rule in _broken(table, row):
                place = f"{table.name}.{column}" + (f' of "{row["key"]}"' if column == "value_json" else "")
                return f"{owner + ': ' if owner else ''}{place} must be {rule}, got {_short(row[column])}"
    return _miscounted(connection, names)


def _rows(connection: Connection, table: sa.Table) -> Iterator[Row]:
    """Yield rows as they are stored, without the conversions of their columns."""
    if connection.dialect.name != "sqlite":
        raw_columns = [sa.type_coerce(column, sa.types.NullType()).label(column.name) for column in table.c]
        for row in connection.execute(sa.select(*raw_columns)).mappings():
            yield dict(row)
        return
    raw: Any = connection.connection.dbapi_connection
    before, raw.text_factory = raw.text_factory, lambda content: content.decode(errors="surrogateescape")
    try:
        names = [column.name for column in table.c]
        for values in raw.execute(f"SELECT {', '.join(names)} FROM {table.name}"):
            yield dict(zip(names, values, strict=True))
    finally:
        raw.text_factory = before


def _broken(table: sa.Table, row: Row) -> Iterator[tuple[str, str]]:
    """Yield each column whose value breaks its rule, and the rule."""
    for column in table.c:
        name, value = column.name, row[column.name]
        if value is None and (name in _OPTIONAL or _not_finite(row, name)):
            continue
        rule = _rule_of_type(column, value)
        if rule is None and name in _JSON:
            rule = _rule_of_json(table, row, name)
        if rule is not None:
            yield name, rule
    if table is schema.hpo_studies and not re.fullmatch("[0-9a-f]{32}", row["uid"]):
        yield "uid", "32 hexadecimal digits"
    if table is schema.trial_params:
        low_high = json.loads(row["distribution_json"])["attributes"]
        choices = low_high.get("choices")
        low, high = (0, len(choices) - 1) if choices is not None else (low_high["low"], low_high["high"])
        if not low <= row["param_value"] <= high:
            yield "param_value", f"between {low:g} and {high:g}"


def _not_finite(row: Row, name: str) -> bool:
    return name in ("value", "intermediate_value") and row[f"{name}_type"] in ("INF_POS", "INF_NEG", "NAN")


def _rule_of_type(column: sa.Column[Any], value: Any) -> str | None:
    kind = column.type
    if isinstance(kind, sa.Enum):
        return None if value in kind.enums else f"one of {', '.join(kind.enums)}"
    if isinstance(kind, sa.Integer):
        return None if isinstance(value, int) and 0 <= value < _LARGEST else "a whole number from 0 on"
    if isinstance(kind, sa.Float):
        return None if isinstance(value, int | float) and math.isfinite(value) else "a finite number"
    if isinstance(kind, sa.DateTime):
        return None if isinstance(value, datetime) or _is_time(value) else "a time"
    return None if isinstance(value, str) and not re.search("[\ud800-\udfff]", value) else "a text in UTF-8"


def _is_time(value: Any) -> bool:
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return True


def _rule_of_json(table: sa.Table, row: Row, name: str) -> str | None:
    """Return the rule that a JSON text breaks: it is no JSON, or not what its key stands for."""
    try:
        content = json.loads(row[name])
    except (ValueError, RecursionError):
        return "valid JSON"
    try:
        _checker(table, name, row.get("key"))(content)
    except HpoError as error:
        return f"valid ({str(error).splitlines()[0].rstrip('.')})"
    except SYMPTOMS as error:
        return f"valid ({' '.join(str(error).splitlines()[-1:])[:120].strip() or type(error).__name__})"
    return None


def _checker(table: sa.Table, name: str, key: str | None) -> Callable[[Any], object]:
    from pydantic import TypeAdapter

    from hpo.config import TrialConfig

    if name == "distribution_json":
        from optuna.distributions import json_to_distribution

        return lambda content: json_to_distribution(json.dumps(content))
    if name == "state_json":
        return TypeAdapter(dict[str, Any]).validate_python
    documents_of = _documents()
    if name == "budget_json":
        return documents_of["budget"]
    if key == "config" and table is schema.trial_user_attributes:
        return lambda content: TrialConfig.from_dict(content, "config")
    if key in documents_of and table is schema.study_user_attributes:
        return documents_of[key]
    owner = StudyAttributes if table.name.startswith("study_") else TrialAttributes
    value_type = _types(owner, "user" if "user" in table.name else "system").get(key or "", Any)
    return lambda content: TypeAdapter(value_type).validate_json(json.dumps(content), strict=True)


def _documents() -> dict[str, Callable[[Any], object]]:
    from hpo import documents
    from hpo.recipe import Budget, StudyRecipe
    from hpo.space import SearchSpace

    return {
        "space": lambda content: documents.check(SearchSpace, content, "space"),
        "recipe": lambda content: documents.check(StudyRecipe, content, "recipe"),
        "budget": lambda content: documents.check(Budget, content, "budget"),
    }


@cache
def _types(owner: type[Attributes], kind: str) -> dict[str, Any]:
    """Return the types of the known attributes of a kind by their keys."""
    return {
        each.key: each.value_type
        for each in vars(owner).values()
        if isinstance(each, Attribute) and each.kind == kind and not isinstance(each, AttributeGroup)
    }


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


def _short(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
