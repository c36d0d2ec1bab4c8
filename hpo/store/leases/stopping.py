"""When a study is over: its limits compared with its trials. Imports no optuna, so it is quick."""

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hpo import documents
from hpo.recipe import Budget
from hpo.store.database import schema
from hpo.store.database.conditions import count, has, is_excused, is_of, is_outside
from hpo.store.record import FINISHED, UNFINISHED, State, TrialAttributes


@dataclass(frozen=True)
class StopReason:
    """Why a study is over."""

    reason: str
    extension: str = ""
    """The option that would extend the study; empty if there is none."""


def count_finished(connection: Connection, study_id: int) -> int:
    """Return how many trials of a study count against its budget."""
    return count(connection, is_of(study_id, FINISHED))


def budget_of(connection: Connection, study_id: int) -> tuple[Budget, sa.Row[Any]]:
    """Return a study's budget, and its row in `schema.hpo_studies`."""
    row = connection.execute(sa.select(schema.hpo_studies).where(schema.hpo_studies.c.study_id == study_id)).one()
    return documents.check(Budget, json.loads(row.budget_json), "budget"), row


def over(connection: Connection, study_id: int) -> StopReason | None:
    """Return which of its limits a study has reached; None if none."""
    return progress(connection, study_id).over


@dataclass(frozen=True)
class StudyProgress:
    """How much of a study's budget is used."""

    budget: Budget
    finished: int
    """Finished trials."""
    over: StopReason | None


def progress(connection: Connection, study_id: int) -> StudyProgress:
    """Return a study's budget, the number of finished trials, and whether the study is over."""
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
    if budget.only_waiting and count(connection, is_of(study_id, UNFINISHED)) == 0:
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
            halfway = (1 + best) / 2 if best >= 0 else best / 2  # towards 1, the best share, or 0, the best log loss
            return StopReason(f"the target {budget.target:g} is reached", f"--stop-at {halfway:.4g}")
        if budget.patience is not None and best is not None and since >= budget.patience:
            return StopReason(f"the best has not improved for {since} trials", f"--patience {2 * since}")
    return None


def failed_trials(connection: Connection, study_id: int) -> int:
    """Return how many trials have failed for good: not those that were continued under another number."""
    return count(connection, sa.and_(is_of(study_id, [State.FAIL]), sa.not_(is_excused())))


def infeasible_draws(connection: Connection, study_id: int) -> int:
    """Return how many draws broke the space's constraints and were not trained."""
    return count(connection, sa.and_(is_of(study_id, [State.FAIL]), has(TrialAttributes.infeasible)))


def count_revived(connection: Connection, study_id: int) -> int:
    """Return how many second chances a study has given: those that failed do not count, as in the budget."""
    return count(connection, sa.and_(is_of(study_id, FINISHED + UNFINISHED), has(TrialAttributes.revives)))


def best_value(connection: Connection, study_id: int) -> tuple[float | None, int]:
    """Return the best value of the complete trials of the space, and how many trials have finished since."""
    columns, values = schema.trials.c, schema.trial_values.c
    query = (
        sa.select(values.value, columns.datetime_complete)
        .where(is_of(study_id, [State.COMPLETE]), columns.trial_id == values.trial_id)
        .where(sa.not_(is_outside()), values.objective == 0)
        .order_by(values.value.desc(), columns.datetime_complete)
        .limit(1)
    )
    best = connection.execute(query).first()
    if best is None:
        return None, 0
    if best.datetime_complete is None:  # the trial was added to the study without being trained
        return best.value, 0
    later = columns.datetime_complete > best.datetime_complete
    return best.value, count(connection, sa.and_(is_of(study_id, FINISHED), later))
