"""The cells of a store whose value breaks the rule of its column. SQLite takes any value in any column."""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hpo.errors import HpoError
from hpo.store.attributes import Attribute, AttributeGroup, Attributes
from hpo.store.database import schema
from hpo.store.record import StudyAttributes, TrialAttributes

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


@dataclass(frozen=True)
class Cell:
    """A cell whose value breaks the rule of its column."""

    table: sa.Table
    column: str
    rule: str
    """What the value must be."""
    row: Row
    """The row as it is stored, without the conversions of its columns."""
    study: str | None = None
    """Name of the study that it belongs to, if that is known."""
    trial: int | None = None
    """Number of the trial that it belongs to, if that is known."""

    def __str__(self) -> str:
        """Return *study, trial: table.column must be, got*."""
        owner = [] if self.study is None else [f'study "{self.study}"']
        owner += [] if self.trial is None else [f"trial {self.trial}"]
        place = f"{self.table.name}.{self.column}"
        place += f' of "{self.row["key"]}"' if self.column == "value_json" else ""
        what = f"{place} must be {self.rule}, got {_short(self.row[self.column])}"
        return f"{', '.join(owner)}: {what}" if owner else what


def broken_cells(connection: Connection) -> Iterator[Cell]:
    """Yield the cells of a store that break their rule. Raises: SQLAlchemyError where a table cannot be read."""
    names: dict[Any, Any] = {}
    numbers: dict[Any, tuple[Any, Any]] = {}
    for table in _TABLES:
        for row in _rows(connection, table):
            if table is schema.studies:
                names[row["study_id"]] = row["study_name"]
            if table is schema.trials:
                numbers[row["trial_id"]] = (row["study_id"], row["number"])
            study, number = numbers.get(row.get("trial_id"), (row.get("study_id"), None))
            for column, rule in _broken(table, row):
                yield Cell(table, column, rule, row, names.get(study), number if study in names else None)


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
    sound = True
    for column in table.c:
        name, value = column.name, row[column.name]
        if value is None and (name in _OPTIONAL or _not_finite(row, name)):
            continue
        rule = _rule_of_type(column, value)
        if rule is None and name in _JSON:
            rule = _rule_of_json(table, row, name)
        if rule is not None:
            sound = False
            yield name, rule
    if not sound:
        return
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


def _short(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
