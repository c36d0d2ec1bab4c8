"""Administration of studies: deleted, renamed, copied; their trials voided and retried."""

import time
import uuid
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from hpo.artifacts import check_uid
from hpo.errors import StoreError, StudyError
from hpo.optuna_compat import trial_id as id_of_trial
from hpo.store import queries
from hpo.store.attributes import Entry
from hpo.store.database import schema, trial_rows
from hpo.store.database.conditions import is_excused, is_of, is_outside
from hpo.store.database.connect import Store
from hpo.store.database.url import shown
from hpo.store.leases import claims, second_chances
from hpo.store.record import FINISHED, State, TrialAttributes, Voided
from hpo.store.studies import check_name, id_of, insert_study, invalidate_caches, names


def check_at_rest(store: Store, name: str, study_id: int) -> dict[str, int]:
    """Check that no worker of a study is alive: none whose beat changes within 2.5 seconds.

    Returns the beats that did not change. Raises: StudyError.
    """
    claims.reap_dead(store, study_id, claims.Watch())
    with store.read() as connection:
        before = claims.beats(connection, study_id)
    if not before:
        return {}
    time.sleep(schema.WATCH_SECONDS)
    with store.read() as connection:
        now = claims.beats(connection, study_id)
    alive = sum(beat != before.get(worker) for worker, beat in now.items())
    if alive:
        raise _still_running(name, alive)
    return now


def _still_running(name: str, alive: int) -> StudyError:
    return StudyError(f'Study "{name}": must be at rest, got {alive} worker(s) at work. Stop them first.')


def reap_all(store: Store, connection: Connection, name: str, study_id: int, still: dict[str, int]) -> None:
    """Within a transaction, take over the trials of the workers whose beats are `still` the same.

    Raises: StudyError if there is any other worker.
    """
    now = claims.beats(connection, study_id)
    moved = now.items() - still.items()
    if moved:
        raise _still_running(name, len(moved))
    for worker_id in now:
        claims.reap(store, connection, study_id, worker_id)


def delete(store: Store, name: str) -> str | None:
    """Delete a study with all its trials; return its uid, by which its files are named.

    Raises: StudyError if there is none of this name, or if workers run; StoreError if the uid is none.
    """
    with store.read() as connection:
        study_id = id_of(connection, store, name)
    check_at_rest(store, name, study_id)
    with store.write() as connection:
        uid = connection.execute(
            sa.select(schema.hpo_studies.c.uid).where(schema.hpo_studies.c.study_id == study_id)
        ).scalar()
        if uid is not None:
            check_uid(uid)
        if store.is_sqlite:
            _reserve_ids(connection)
        ids = sa.select(schema.trials.c.trial_id).where(schema.trials.c.study_id == study_id)
        for table in (*schema.TRIAL_TABLES, schema.trial_heartbeats):
            connection.execute(sa.delete(table).where(table.c.trial_id.in_(ids)))
        tables = (schema.hpo_leases, schema.hpo_workers, schema.hpo_studies)
        for table in (*tables, schema.trials, *schema.STUDY_TABLES, schema.studies):
            connection.execute(sa.delete(table).where(table.c.study_id == study_id))
    return uid


def _reserve_ids(connection: Connection) -> None:
    """Prevent SQLite from reusing the ids of rows that are about to be deleted."""
    table = schema.hpo_schema
    for column, last in ((schema.studies.c.study_id, "last_study_id"), (schema.trials.c.trial_id, "last_trial_id")):
        newest = trial_rows.fresh_id(connection, column, table.c[last]) - 1
        connection.execute(sa.update(table).values({last: newest}))


def rename(store: Store, name: str, new_name: str) -> None:
    """Give a study another name. Raises: UsageError, StudyError."""
    check_name(new_name)
    with store.read() as connection:
        study_id = id_of(connection, store, name)
    check_at_rest(store, name, study_id)
    try:
        with store.write() as connection:
            renamed = sa.update(schema.studies).where(schema.studies.c.study_id == study_id)
            connection.execute(renamed.values(study_name=new_name))
    except IntegrityError:
        raise StudyError(_taken(store, new_name)) from None


def _taken(store: Store, name: str) -> str:
    return f'{shown(store.url)}: there is a study "{name}" already. Choose another name.'


def copy(
    source: Store,
    name: str,
    target: Store,
    new_name: str,
    *,
    before_commit: Callable[[str, str], None] = lambda old_uid, uid: None,
) -> tuple[str | None, str]:
    """Copy a study into another store (or the same, under another name), whole or not at all; and compare.

    Running trials wait in the copy, to be resumed there. `before_commit` is called with the uids of original and copy
    before anything is written: a copy that is there has its files. Returns the uids of original and copy.
    Raises: UsageError, StudyError; StoreError if the copy does not read back equal.
    """
    check_name(new_name)
    with source.read() as connection:
        study_id = id_of(connection, source, name)
        originals = trial_rows.load_trials(connection, study_id)
        rows = {t.name: _rows(connection, t, t.c.study_id == study_id) for t in schema.STUDY_TABLES}
        main = _rows(connection, schema.trials, schema.trials.c.study_id == study_id)
        children = {t.name: _rows(connection, t, t.c.trial_id.in_(_trial_ids(study_id))) for t in schema.TRIAL_TABLES}
        budget_rows = _rows(connection, schema.hpo_studies, schema.hpo_studies.c.study_id == study_id)
    old_uid, uid = (check_uid(budget_rows[0]["uid"]) if budget_rows else None), uuid.uuid4().hex
    with target.read() as connection:
        if new_name in names(connection):
            raise StudyError(_taken(target, new_name))
    if old_uid is not None:
        before_commit(old_uid, uid)
    try:
        with target.write() as connection:
            new_study_id = insert_study(target, connection, new_name)
            connection.execute(sa.delete(schema.study_directions).where(_of(schema.study_directions, new_study_id)))
            for table in schema.STUDY_TABLES:
                _insert(connection, table, [row | {"study_id": new_study_id} for row in rows[table.name]])
            new_ids: dict[int, int] = {}
            for row in sorted(main, key=lambda row: int(row["number"])):
                new_ids[row["trial_id"]], _ = trial_rows.insert_trial(target, connection, new_study_id, State.WAITING)
                state = State.WAITING if row["state"] == State.RUNNING else State(row["state"])
                times = {key: row[key] for key in ("datetime_start", "datetime_complete")}
                changed = sa.update(schema.trials).where(schema.trials.c.trial_id == new_ids[row["trial_id"]])
                connection.execute(changed.values(state=state, number=row["number"], **times))
            for table in schema.TRIAL_TABLES:
                _insert(connection, table, [r | {"trial_id": new_ids[r["trial_id"]]} for r in children[table.name]])
            for row in budget_rows:
                _insert(connection, schema.hpo_studies, [row | {"study_id": new_study_id, "uid": uid}])
            copies = trial_rows.load_trials(connection, new_study_id)
            different = [a.number for a, b in zip(originals, copies, strict=False) if _comparable(a) != _comparable(b)]
            if different or len(originals) != len(copies):
                raise StoreError(
                    f'{shown(target.url)}: the copy of "{name}" must equal it, got {len(copies)} of {len(originals)} '
                    f"trials, {len(different)} of them different. Nothing was copied."
                )
    except IntegrityError:
        raise StudyError(_taken(target, new_name)) from None
    return old_uid, uid


def _of(table: sa.Table, study_id: int) -> sa.ColumnElement[bool]:
    return table.c.study_id == study_id


def _trial_ids(study_id: int) -> sa.Select[tuple[int]]:
    return sa.select(schema.trials.c.trial_id).where(schema.trials.c.study_id == study_id)


def _rows(connection: Connection, table: sa.Table, where: sa.ColumnElement[bool]) -> list[dict[str, Any]]:
    """Return rows without their primary key, in the order of their creation."""
    key = next(iter(table.primary_key)).name
    keep = {"trial_id"} if table is schema.trials else set()
    rows = connection.execute(sa.select(table).where(where).order_by(table.c[key])).mappings()
    return [{k: v for k, v in row.items() if k != key or k in keep} for row in rows]


def _insert(connection: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(sa.insert(table), rows)


def _comparable(trial: Any) -> tuple[Any, ...]:
    state = State.WAITING if trial.state.name == State.RUNNING else State(trial.state.name)
    parts = (trial.values, trial.params, trial.distributions, trial.intermediate_values)
    return (trial.number, state, repr(parts), trial.user_attrs, trial.system_attrs)


def void(store: Store, name: str, number: int, why: str) -> None:
    """Hide a finished trial from samplers; its record stays. Another trial will run in its place.

    Raises: StudyError if there is no such trial, or if it is not finished.
    """
    with store.write() as connection:
        study_id = id_of(connection, store, name)
        store.lock_study(connection, study_id)
        trial_id = queries.trial_id_of(connection, study_id, number)
        if trial_id is None:
            raise StudyError(f'Study "{name}" has no trial {number}. `hpo studies show {name}` lists the best.')
        trial = queries.trial(connection, trial_id)
        if trial.state not in FINISHED:
            raise StudyError(
                f'Study "{name}": trial {number} must be complete or pruned to be voided, got {trial.state.lower()}.'
            )
        changes = trial_rows.Changes(states={trial_id: (State.FAIL, ())})
        changes.note(
            trial_id,
            TrialAttributes.void.entry(Voided(why, trial.state)),
            TrialAttributes.is_void.entry(value=True),
            TrialAttributes.excused.entry(f"voided: {why}"),
        )
        trial_rows.write(store, connection, changes)
        invalidate_caches(connection, study_id)


def retry(store: Store, name: str, kind: str | None) -> list[tuple[int, int]]:
    """Enqueue failed trials again, all or those of a kind; return pairs of old and new numbers.

    Raises: StudyError if there is no such study.
    """
    with store.write() as connection:
        study_id = id_of(connection, store, name)
        store.lock_study(connection, study_id)
        failed = sa.and_(is_of(study_id, [State.FAIL]), sa.not_(is_excused()), sa.not_(is_outside()))
        retried = []
        for trial in trial_rows.load_where(connection, failed):
            attributes = TrialAttributes.of(trial)
            if kind is not None and (attributes.failure is None or attributes.failure.kind != kind):
                continue
            entries: list[Entry] = [TrialAttributes.retries.entry(trial.number)]
            if attributes.fixed_params is not None:
                entries.append(TrialAttributes.fixed_params.entry(attributes.fixed_params))
            if attributes.revives is not None:
                entries += second_chances.origin(attributes.revives, trial_rows.root_of(trial))
            number = trial_rows.add_waiting(store, connection, study_id, trial, entries)
            changes = trial_rows.Changes()
            changes.note(id_of_trial(trial), TrialAttributes.excused.entry(f"retried as trial {number}"))
            trial_rows.write(store, connection, changes)
            retried.append((trial.number, number))
    return retried
