"""Trials, read and written in bulk.

Optuna's own storage loads a study at about a millisecond per trial and writes a report in three to four
statements. Here a study is read in six statements, and all changes of a worker are written in one short
transaction - the same rows in the same tables.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from hpo.interpreter import collector_paused
from hpo.store.attributes import Entry
from hpo.store.database import schema
from hpo.store.database.connect import Store
from hpo.store.record import KEPT_WHEN_CONTINUED, State, TrialAttributes

FEW_TRIALS = 500
"""Up to so many trials, their rows in other tables are selected by ids: Postgres reads whole tables for a join."""


def root_of(trial: FrozenTrial) -> int:
    """Return the number under which a trial first began."""
    root = TrialAttributes.of(trial).root
    return trial.number if root is None else root


@dataclass
class Changes:
    """Changes of some trials, to be written. Writing the same changes twice has the effect of once."""

    params: dict[tuple[int, str], tuple[float, str]] = field(default_factory=dict)
    """(trial, name) -> internal value, distribution."""
    user_attrs: dict[tuple[int, str], str] = field(default_factory=dict)
    system_attrs: dict[tuple[int, str], str] = field(default_factory=dict)
    intermediate: dict[tuple[int, int], float] = field(default_factory=dict)
    """(trial, step) -> value."""
    states: dict[int, tuple[State, Sequence[float]]] = field(default_factory=dict)
    """trial -> new state, values: none, or one per objective. A trial that leaves RUNNING loses its lease."""

    def __bool__(self) -> bool:
        return bool(self.params or self.user_attrs or self.system_attrs or self.intermediate or self.states)

    def note(self, trial_id: int, *entries: Entry) -> None:
        """Add attributes of a trial."""
        for entry in entries:
            attrs = self.user_attrs if entry.kind == "user" else self.system_attrs
            attrs[trial_id, entry.key] = json.dumps(entry.value)

    def merge(self, later: "Changes") -> None:
        """Add changes made after these; of two values for the same, the later one is kept."""
        self.params |= later.params
        self.user_attrs |= later.user_attrs
        self.system_attrs |= later.system_attrs
        self.intermediate |= later.intermediate
        self.states |= later.states


def now() -> datetime:
    """Return the time as Optuna stores it: UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def write(store: Store, connection: Connection, changes: Changes) -> None:
    """Write changes within a transaction."""
    attrs = (
        (schema.trial_user_attributes, changes.user_attrs),
        (schema.trial_system_attributes, changes.system_attrs),
    )
    for table, values in attrs:
        rows = [{"trial_id": t, "key": k, "value_json": v} for (t, k), v in values.items()]
        _upsert(store, connection, table, ("trial_id", "key"), rows)
    rows = [
        {"trial_id": t, "param_name": n, "param_value": v, "distribution_json": d}
        for (t, n), (v, d) in changes.params.items()
    ]
    _upsert(store, connection, schema.trial_params, ("trial_id", "param_name"), rows)
    rows = [
        {"trial_id": t, "step": s} | _stored(v, "intermediate_value", "intermediate_value_type")
        for (t, s), v in changes.intermediate.items()
    ]
    _upsert(store, connection, schema.trial_intermediate_values, ("trial_id", "step"), rows)
    for trial_id, (state, objectives) in changes.states.items():
        set_state(store, connection, trial_id, state, objectives)


def set_state(store: Store, connection: Connection, trial_id: int, state: State, values: Sequence[float] = ()) -> None:
    """Move a trial to a state, with its values if it has any; it keeps its lease only while RUNNING."""
    times: dict[str, Any] = {}
    if state == State.RUNNING:
        times["datetime_start"] = now()
    elif state != State.WAITING:
        times["datetime_complete"] = now()
    trials = schema.trials
    connection.execute(sa.update(trials).where(trials.c.trial_id == trial_id).values(state=state, **times))
    rows = [
        {"trial_id": trial_id, "objective": i} | _stored(value, "value", "value_type") for i, value in enumerate(values)
    ]
    _upsert(store, connection, schema.trial_values, ("trial_id", "objective"), rows)
    if state != State.RUNNING:
        connection.execute(sa.delete(schema.hpo_leases).where(schema.hpo_leases.c.trial_id == trial_id))


def insert_trial(store: Store, connection: Connection, study_id: int, state: State) -> tuple[int, int]:
    """Add an empty trial to a study whose row is locked; return its id and number."""
    [inserted] = insert_trials(store, connection, study_id, state, 1)
    return inserted


def insert_trials(
    store: Store, connection: Connection, study_id: int, state: State, count: int
) -> list[tuple[int, int]]:
    """Add empty trials to a study whose row is locked; return the id and number of each."""
    if count == 0:
        return []
    trials = schema.trials
    existing = sa.select(sa.func.count()).where(trials.c.study_id == study_id)
    first = int(connection.execute(existing).scalar_one())
    rows: list[dict[str, Any]] = [{"study_id": study_id, "number": first + i, "state": state} for i in range(count)]
    if state == State.RUNNING:
        started = now()
        rows = [row | {"datetime_start": started} for row in rows]
    if store.is_sqlite:
        fresh = fresh_id(connection, trials.c.trial_id, schema.hpo_schema.c.last_trial_id)
        rows = [row | {"trial_id": fresh + i} for i, row in enumerate(rows)]
    insert = sa.insert(trials).returning(trials.c.trial_id, trials.c.number, sort_by_parameter_order=True)
    return [(int(row.trial_id), int(row.number)) for row in connection.execute(insert, rows)]


def fresh_id(connection: Connection, column: sa.Column[int], last: sa.Column[int]) -> int:
    """Return an id that no row has or, before it was deleted, ever had. For SQLite, within a write transaction."""
    used = connection.execute(sa.select(sa.func.max(column))).scalar() or 0
    deleted = connection.execute(sa.select(last)).scalar() or 0
    return int(max(used, deleted)) + 1


def add_waiting(
    store: Store, connection: Connection, study_id: int, trial: FrozenTrial, entries: Iterable[Entry]
) -> int:
    """Add a trial that waits to be run with the parameters and the config of another; return its number.

    `entries` are further attributes.
    """
    new_id, number = insert_trial(store, connection, study_id, State.WAITING)
    kept = [Entry(a.kind, a.key, trial.user_attrs[a.key]) for a in KEPT_WHEN_CONTINUED if a.key in trial.user_attrs]
    changes = Changes()
    changes.note(new_id, *kept, *entries)
    for name, distribution in trial.distributions.items():
        internal = distribution.to_internal_repr(trial.params[name])
        changes.params[new_id, name] = param_change(internal, distribution)
    write(store, connection, changes)
    return number


def _upsert(
    store: Store, connection: Connection, table: sa.Table, key: tuple[str, ...], rows: list[dict[str, Any]]
) -> None:
    if not rows:
        return
    insert = store.insert(table)
    others = {name: insert.excluded[name] for name in rows[0] if name not in key}
    connection.execute(insert.on_conflict_do_update(index_elements=list(key), set_=others), rows)


def _stored(value: float, name: str, type_name: str) -> dict[str, Any]:
    if math.isfinite(value):
        return {name: value, type_name: "FINITE"}
    kind = "NAN" if math.isnan(value) else ("INF_POS" if value > 0 else "INF_NEG")
    return {name: None, type_name: kind}


_NOT_FINITE = {"NAN": math.nan, "INF_POS": math.inf, "INF_NEG": -math.inf}


def param_change(value: float, distribution: BaseDistribution) -> tuple[float, str]:
    """Return a parameter as it is stored."""
    return value, distribution_to_json(distribution)


@lru_cache(maxsize=4096)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def empty(trial_id: int, number: int) -> FrozenTrial:
    """Return a running trial that has nothing but its number yet."""
    return FrozenTrial(
        number=number,
        trial_id=trial_id,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=datetime.now(),
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


def load_some(connection: Connection, trial_ids: Iterable[int]) -> list[FrozenTrial]:
    """Read trials by their ids, in order. Equal to what Optuna's storage gives."""
    return load_where(connection, schema.trials.c.trial_id.in_(list(trial_ids)))


def load_trials(connection: Connection, study_id: int) -> list[FrozenTrial]:
    """Read all trials of a study, in order. Equal to what Optuna's storage gives."""
    return load_where(connection, schema.trials.c.study_id == study_id)


def load_newer(connection: Connection, study_id: int, newer_than: int, also: Iterable[int]) -> list[FrozenTrial]:
    """Read the trials of a study that are newer than an id, and some older ones, without user attributes."""
    columns, also = schema.trials.c, list(also)
    newer = columns.trial_id > newer_than
    wanted = sa.or_(newer, columns.trial_id.in_(also)) if also else newer
    # + 0: not by the index of studies, which would read every trial of a large one.
    return load_where(connection, sa.and_(columns.study_id + 0 == study_id, wanted), user_attrs=False)


def load_where(connection: Connection, wanted: sa.ColumnElement[bool], *, user_attrs: bool = True) -> list[FrozenTrial]:
    """Read the trials that fulfil a condition on `schema.trials`, in order; if asked, without user attributes."""
    with collector_paused():  # it would go through millions of new objects again and again, a third of the time
        return _load_where(connection, wanted, user_attrs=user_attrs)


def _load_where(connection: Connection, wanted: sa.ColumnElement[bool], *, user_attrs: bool) -> list[FrozenTrial]:
    trials = schema.trials
    rows = connection.execute(sa.select(trials).where(wanted).order_by(trials.c.trial_id)).all()
    if not rows:
        return []
    ids = [row.trial_id for row in rows] if len(rows) <= FEW_TRIALS else None

    def children(table: sa.Table, *columns: str) -> dict[int, list[Any]]:
        by_trial: dict[int, list[Any]] = defaultdict(list)
        query = sa.select(table.c.trial_id, *(table.c[name] for name in columns))
        if ids is not None:
            query = query.where(table.c.trial_id.in_(ids))
        else:
            query = query.join_from(table, trials, table.c.trial_id == trials.c.trial_id).where(wanted)
        # fetchall: row by row, SQLAlchemy's cursor takes most of the time.
        for row in connection.execute(query.order_by(next(iter(table.primary_key)))).fetchall():
            by_trial[row[0]].append(row)
        return by_trial

    params = children(schema.trial_params, "param_name", "param_value", "distribution_json")
    values = children(schema.trial_values, "value", "value_type")
    reports = children(schema.trial_intermediate_values, "step", "intermediate_value", "intermediate_value_type")
    system = children(schema.trial_system_attributes, "key", "value_json")
    user = children(schema.trial_user_attributes, "key", "value_json") if user_attrs else {}
    result = []
    for row in rows:
        i = row.trial_id
        drawn = [(name, value, _distribution(text)) for _, name, value, text in params.get(i, ())]
        result.append(
            FrozenTrial(
                number=row.number,
                trial_id=i,
                state=TrialState[row.state],
                value=None,
                values=[_NOT_FINITE.get(kind, value) for _, value, kind in values[i]] if i in values else None,
                datetime_start=_local(row.datetime_start),
                datetime_complete=_local(row.datetime_complete),
                params={name: d.to_external_repr(value) for name, value, d in drawn},
                distributions={name: d for name, _, d in drawn},
                user_attrs={key: json.loads(text) for _, key, text in user.get(i, ())},
                system_attrs={key: json.loads(text) for _, key, text in system.get(i, ())},
                intermediate_values={step: _NOT_FINITE.get(kind, v) for _, step, v, kind in reports.get(i, ())},
            )
        )
    return result


def _local(stored: datetime | None) -> datetime | None:
    """Return a stored time as Optuna's trials have it: local, without a zone."""
    return stored.replace(tzinfo=UTC).astimezone().replace(tzinfo=None) if stored else None
