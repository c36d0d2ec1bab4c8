"""When a study is over: its limits against what its trials have come to. Needs no optuna, so it is quick to ask."""

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hpo import documents
from hpo.recipe import Budget
from hpo.store.database import schema

FAILURE = "failure"
"""User attribute of a failed trial: kind and message."""
CONFIRMS = "confirms"
"""Attribute of a study that trains another's best again: the other's uid; of its trials: which, and for which time."""
EXCUSED = "excused"
"""User attribute of a failed trial that does not count as a failure; its text says why."""

VOID = "void"
"""User attribute of a trial that was taken out: why, and what it had been; system attribute too, for samplers."""
COSTS = "costs"
"""User attribute of a trial: what its untrained network was found to cost."""
COST = "cost"
"""System attribute of a trial with two objectives: the second, known before it is trained."""
INFEASIBLE = "infeasible"
"""User attribute of a draw that broke the space's constraints and was not trained; its text says which."""
CONSTRAINT = "constraints:"
"""System attribute by which Optuna knows a constraint, before its name; above 0 it is broken."""
OUTSIDE = "outside"
"""System attribute of a trial that the study's space, changed since, cannot draw; its text says why."""


@dataclass(frozen=True)
class StopReason:
    """The study is over, why, and the option that would let it go on."""

    reason: str
    extension: str = ""


def count(connection: Connection, where: sa.ColumnElement[bool]) -> int:
    """Return how many rows there are of this kind."""
    return int(connection.execute(sa.select(sa.func.count()).where(where)).scalar_one())


def is_outside() -> sa.ColumnElement[bool]:
    """The condition on `schema.trials` that a trial is not one of the study's space."""
    attrs = schema.trial_system_attributes.c
    return sa.exists().where(attrs.trial_id == schema.trials.c.trial_id, attrs.key == OUTSIDE)


def count_finished(connection: Connection, study_id: int) -> int:
    """Return how many trials of a study count against its budget."""
    columns = schema.trials.c
    return count(connection, sa.and_(columns.study_id == study_id, columns.state.in_(schema.FINISHED)))


def budget_of(connection: Connection, study_id: int) -> tuple[Budget, sa.Row[Any]]:
    """Return a study's budget and its row of ours."""
    row = connection.execute(sa.select(schema.hpo_studies).where(schema.hpo_studies.c.study_id == study_id)).one()
    return documents.check(Budget, json.loads(row.budget_json), "budget"), row


def over(connection: Connection, study_id: int) -> StopReason | None:
    """Say whether a study has reached one of its limits, and which."""
    return progress(connection, study_id).over


@dataclass(frozen=True)
class StudyProgress:
    """How far a study has come."""

    budget: Budget
    finished: int
    over: StopReason | None


def progress(connection: Connection, study_id: int) -> StudyProgress:
    """Return a study's budget, what is finished of it, and whether it is over."""
    budget, row = budget_of(connection, study_id)
    finished = count_finished(connection, study_id)
    return StudyProgress(budget, finished, _reached(connection, study_id, budget, row, finished))


def _reached(
    connection: Connection, study_id: int, budget: Budget, row: sa.Row[Any], finished: int
) -> StopReason | None:
    if row.stop_reason:
        return StopReason(row.stop_reason)
    if finished >= budget.trials:
        return StopReason(f"all {budget.trials} trials are finished", f"--trials {2 * finished}")
    if budget.only_waiting:
        columns = schema.trials.c
        if count(connection, sa.and_(columns.study_id == study_id, columns.state.in_(schema.UNFINISHED))) == 0:
            return StopReason(f"all trials that were waiting have ended, {finished} of {budget.trials} finished")
    if budget.timeout is not None and row.active_seconds >= budget.timeout:
        return StopReason(f"{budget.timeout} s of searching are used up", f"--timeout {2 * budget.timeout}s")
    failures = failed_trials(connection, study_id)
    if failures >= budget.max_failures:
        what = "trial has" if failures == 1 else "trials have"
        return StopReason(f"{failures} {what} failed", f"--max-failures {2 * failures}")
    if budget.target is not None or budget.patience is not None:
        best, since = best_value(connection, study_id)
        if budget.target is not None and best is not None and best >= budget.target:
            halfway = (1 + best) / 2 if best >= 0 else best / 2  # to 1, a share's best, or to 0, a log loss's
            return StopReason(f"the target {budget.target:g} is reached", f"--target {halfway:.4g}")
        if budget.patience is not None and best is not None and since >= budget.patience:
            return StopReason(f"the best has not improved for {since} trials", f"--patience {2 * since}")
    return None


def failed_trials(connection: Connection, study_id: int) -> int:
    """Return how many trials have failed for good: not those that went on under another number."""
    columns, attrs = schema.trials.c, schema.trial_user_attributes.c
    failed = sa.and_(columns.study_id == study_id, columns.state == "FAIL")
    excused = sa.exists().where(attrs.trial_id == columns.trial_id, attrs.key == EXCUSED)
    return count(connection, sa.and_(failed, sa.not_(excused)))


def infeasible_draws(connection: Connection, study_id: int) -> int:
    """Return how many draws broke the space's constraints and were not trained."""
    columns, attrs = schema.trials.c, schema.trial_user_attributes.c
    rejected = sa.exists().where(attrs.trial_id == columns.trial_id, attrs.key == INFEASIBLE)
    return count(connection, sa.and_(columns.study_id == study_id, columns.state == "FAIL", rejected))


def best_value(connection: Connection, study_id: int) -> tuple[float | None, int]:
    """Return the best value of the complete trials of the space, and how many have finished since it came."""
    columns, values = schema.trials.c, schema.trial_values.c
    query = (
        sa.select(values.value, columns.datetime_complete)
        .where(columns.trial_id == values.trial_id, columns.study_id == study_id, columns.state == "COMPLETE")
        .where(sa.not_(is_outside()), values.objective == 0)
        .order_by(values.value.desc(), columns.datetime_complete)
        .limit(1)
    )
    best = connection.execute(query).first()
    if best is None:
        return None, 0
    if best.datetime_complete is None:  # of a trial that was added by other means than training it
        return best.value, 0
    since = sa.and_(
        columns.study_id == study_id,
        columns.state.in_(schema.FINISHED),
        columns.datetime_complete > best.datetime_complete,
    )
    return best.value, count(connection, since)
