"""Looking at studies without touching them: plain queries, no optuna, quick on studies of any size."""

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hpo.recipe import Budget
from hpo.store.database import schema
from hpo.store.leases import stopping
from hpo.store.leases.stopping import EXCUSED, FAILURE, StopReason

STATES = ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")


@dataclass(frozen=True)
class TrialView:
    """A trial as people look at it."""

    trial_id: int
    number: int
    state: str
    value: float | None
    """Of the metric."""
    curve: dict[int, float]
    """Value of the metric by epoch."""
    attrs: dict[str, Any]
    params: dict[str, Any]
    """As drawn, by name; empty if they were not asked for."""
    cost: float | None = None
    """The second objective's value, if there are two."""
    outside: str | None = None
    """Why the study's space, changed since, cannot draw it; None if it can."""


@dataclass(frozen=True)
class StudyView:
    """A study as people look at it; what hpo keeps of it is None for a study that it did not make."""

    study_id: int
    name: str
    counts: dict[str, int]
    """Trials by state; FAIL without those that went on under another number."""
    best_value: float | None
    attrs: dict[str, Any]
    budget: Budget | None
    active_seconds: float | None
    over: StopReason | None
    metric: str
    """What the values are of, in words: "validation accuracy"."""
    cost: str | None
    """What the second objective is, in words: "parameters"; None if there is one objective."""
    workers: tuple[dict[str, Any], ...]
    infeasible: int = 0
    """Draws that broke the space's constraints and were not trained."""
    outside: int = 0
    """Finished trials that the study's space, changed since, cannot draw."""

    @property
    def finished(self) -> int:
        """Trials that count against the budget."""
        return self.counts["COMPLETE"] + self.counts["PRUNED"]

    @property
    def trials_per_hour(self) -> float | None:
        """Finished trials per hour in which a worker was at work; None before there are any."""
        return 3600 * self.finished / self.active_seconds if self.finished and self.active_seconds else None

    @property
    def lanes(self) -> int:
        """Programs in which workers train several trials at once."""
        return sum(int(worker.get("lanes", 0)) for worker in self.workers)

    @property
    def occupancy(self) -> float | None:
        """The part of the slots for trials that was in use so far, over the workers that tell it."""
        told = [float(worker["occupancy"]) for worker in self.workers if "occupancy" in worker]
        return sum(told) / len(told) if told else None


def studies(connection: Connection) -> list[StudyView]:
    """Return all studies of a store, in the order they were made."""
    ids = connection.execute(sa.select(schema.studies.c.study_id).order_by(schema.studies.c.study_id)).scalars()
    return [study(connection, study_id) for study_id in list(ids)]


def study(connection: Connection, study_id: int) -> StudyView:
    """Return one study."""
    name = connection.execute(
        sa.select(schema.studies.c.study_name).where(schema.studies.c.study_id == study_id)
    ).scalar_one()
    columns, attrs = schema.trials.c, schema.study_user_attributes.c
    counted = connection.execute(
        sa.select(columns.state, sa.func.count()).where(columns.study_id == study_id).group_by(columns.state)
    )
    counts = dict.fromkeys(STATES, 0) | {state: int(number) for state, number in counted}
    ours = connection.execute(sa.select(schema.hpo_studies).where(schema.hpo_studies.c.study_id == study_id)).first()
    rows = connection.execute(sa.select(attrs.key, attrs.value_json).where(attrs.study_id == study_id))
    if ours is not None:
        counts["FAIL"] = stopping.failed_trials(connection, study_id)
    workers = connection.execute(
        sa.select(schema.hpo_workers.c.state_json).where(schema.hpo_workers.c.study_id == study_id)
    )
    return StudyView(
        study_id=study_id,
        name=name,
        counts=counts,
        best_value=stopping.best_value(connection, study_id)[0],
        attrs={row.key: json.loads(row.value_json) for row in rows},
        budget=stopping.budget_of(connection, study_id)[0] if ours is not None else None,
        active_seconds=ours.active_seconds if ours is not None else None,
        over=stopping.over(connection, study_id) if ours is not None else None,
        metric=metric(connection, study_id),
        cost=cost(connection, study_id),
        workers=tuple(json.loads(text) for text in workers.scalars()),
        infeasible=stopping.infeasible_draws(connection, study_id),
        outside=stopping.count(
            connection, sa.and_(columns.study_id == study_id, columns.state.in_(schema.FINISHED), stopping.is_outside())
        ),
    )


def metric(connection: Connection, study_id: int) -> str:
    """Return what a study's values are of, in words; "value" for a study that does not say so."""
    return _value_names(connection, study_id)[0]


def cost(connection: Connection, study_id: int) -> str | None:
    """Return what a study minimizes besides, in words; None if it has one objective."""
    names = _value_names(connection, study_id)
    return names[1] if len(names) > 1 else None


def _value_names(connection: Connection, study_id: int) -> list[str]:
    table = schema.study_system_attributes
    query = sa.select(table.c.value_json).where(table.c.study_id == study_id, table.c.key == schema.METRIC_NAMES)
    text = connection.execute(query).scalar()
    return ["value"] if text is None else [str(name) for name in json.loads(text)]


def best_trials(connection: Connection, study_id: int, count: int, outside: bool = False) -> list[TrialView]:
    """Return the best complete trials of the space (or of those outside it), the best first.

    Of equals the one that costs less, then the earlier.
    """
    columns, values, costs = schema.trials.c, schema.trial_values.c, schema.trial_values.alias().c
    cost = sa.select(costs.value).where(costs.trial_id == columns.trial_id, costs.objective == 1).scalar_subquery()
    belongs = stopping.is_outside() if outside else sa.not_(stopping.is_outside())
    query = (
        sa.select(columns.trial_id)
        .where(columns.trial_id == values.trial_id, columns.study_id == study_id, columns.state == "COMPLETE", belongs)
        .where(values.objective == 0)
        .order_by(values.value.desc(), cost, columns.number)
        .limit(count)
    )
    return _views(connection, list(connection.execute(query).scalars()))


def front(connection: Connection, study_id: int) -> list[TrialView]:
    """Return the Pareto front of a study with two objectives, the best by the metric first: each next one costs less.

    Of equals in both the earlier. Empty for a study with one objective.
    """
    columns, values, costs = schema.trials.c, schema.trial_values.c, schema.trial_values.alias().c
    query = (
        sa.select(columns.trial_id, costs.value)
        .where(columns.study_id == study_id, columns.state == "COMPLETE", sa.not_(stopping.is_outside()))
        .where(columns.trial_id == values.trial_id, values.objective == 0)
        .where(columns.trial_id == costs.trial_id, costs.objective == 1)
        .order_by(values.value.desc(), costs.value, columns.number)
    )
    found, lowest = [], float("inf")
    for trial_id, cost in connection.execute(query).fetchall():
        if cost < lowest:
            found.append(trial_id)
            lowest = cost
    return _views(connection, found)


def running_trials(connection: Connection, study_id: int) -> list[TrialView]:
    """Return the trials that are being trained."""
    columns = schema.trials.c
    query = sa.select(columns.trial_id).where(columns.study_id == study_id, columns.state == "RUNNING")
    return _views(connection, list(connection.execute(query.order_by(columns.number)).scalars()))


def best_so_far(connection: Connection, study_id: int) -> list[float]:
    """Return the best value of the complete trials after each finished trial, in the order they finished."""
    columns, values = schema.trials.c, schema.trial_values.c
    query = (
        sa.select(columns.state, values.value)
        .where(columns.trial_id == values.trial_id, columns.study_id == study_id, columns.state.in_(schema.FINISHED))
        .where(sa.not_(stopping.is_outside()), values.objective == 0)
        .order_by(columns.datetime_complete, columns.number)
    )
    best, found = float("-inf"), []
    for state, value in connection.execute(query).fetchall():
        best = max(best, value) if state == "COMPLETE" else best
        found.append(best)
    return [value for value in found if value > float("-inf")]


def last_ended(connection: Connection, study_id: int, count: int) -> list[TrialView]:
    """Return the trials that ended last, the latest first; without those that went on elsewhere."""
    columns, attrs = schema.trials.c, schema.trial_user_attributes.c
    excused = sa.exists().where(attrs.trial_id == columns.trial_id, attrs.key == EXCUSED)
    ended = columns.state.in_(("COMPLETE", "PRUNED", "FAIL"))
    query = (
        sa.select(columns.trial_id)
        .where(columns.study_id == study_id, ended, sa.not_(excused))
        .order_by(columns.datetime_complete.desc(), columns.number.desc())
        .limit(count)
    )
    return _views(connection, list(connection.execute(query).scalars()))


def baseline_trial(connection: Connection, study_id: int) -> TrialView | None:
    """Return the best finished baseline of a study."""
    columns, attrs = schema.trials.c, schema.trial_user_attributes.c
    query = sa.select(columns.trial_id).where(
        columns.study_id == study_id,
        columns.state.in_(schema.FINISHED),
        attrs.trial_id == columns.trial_id,
        attrs.key == "baseline",
    )
    found = _views(connection, list(connection.execute(query).scalars()))
    return max((t for t in found if t.value is not None), key=lambda t: t.value or 0.0, default=None)


def trials_with(connection: Connection, study_id: int, key: str) -> list[TrialView]:
    """Return the trials that have a user attribute, in the order of their numbers."""
    columns, attrs = schema.trials.c, schema.trial_user_attributes.c
    query = (
        sa.select(columns.trial_id)
        .where(columns.study_id == study_id, attrs.trial_id == columns.trial_id, attrs.key == key)
        .order_by(columns.number)
    )
    return _views(connection, list(connection.execute(query).scalars()))


def failure_kinds(connection: Connection, study_id: int) -> dict[str, int]:
    """Return how many trials ended by each kind of fault."""
    columns, attrs = schema.trials.c, schema.trial_user_attributes.c
    query = sa.select(attrs.value_json).where(
        attrs.trial_id == columns.trial_id, columns.study_id == study_id, attrs.key == FAILURE
    )
    kinds: dict[str, int] = defaultdict(int)
    for text in connection.execute(query).scalars():
        kinds[json.loads(text)["kind"]] += 1
    return dict(kinds)


def trial_id_of(connection: Connection, study_id: int, number: int) -> int | None:
    """Return the id of a trial by its number."""
    columns = schema.trials.c
    query = sa.select(columns.trial_id).where(columns.study_id == study_id, columns.number == number)
    found: int | None = connection.execute(query).scalar()
    return found


def trial(connection: Connection, trial_id: int) -> TrialView:
    """Return one trial."""
    return _views(connection, [trial_id])[0]


def _views(connection: Connection, trial_ids: list[int]) -> list[TrialView]:
    """Return trials in the order of the ids given."""
    if not trial_ids:
        return []

    def rows(table: sa.Table, *names: str) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = defaultdict(list)
        chosen = sa.select(table.c.trial_id, *(table.c[name] for name in names))
        query = chosen.where(table.c.trial_id.in_(trial_ids)).order_by(next(iter(table.primary_key)))
        for row in connection.execute(query):
            found[row[0]].append(row[1:])
        return found

    main = rows(schema.trials, "number", "state")
    objectives = rows(schema.trial_values, "objective", "value")
    values: dict[int, dict[int, float]] = {i: dict(tuple(row) for row in found) for i, found in objectives.items()}
    curves = rows(schema.trial_intermediate_values, "step", "intermediate_value")
    attrs = rows(schema.trial_user_attributes, "key", "value_json")
    params = rows(schema.trial_params, "param_name", "param_value", "distribution_json")
    system = rows(schema.trial_system_attributes, "key", "value_json")
    outside = {i: json.loads(text) for i in trial_ids for key, text in system[i] if key == stopping.OUTSIDE}
    return [
        TrialView(
            trial_id=i,
            number=main[i][0][0],
            state=main[i][0][1],
            value=values.get(i, {}).get(0),
            curve=dict(sorted(tuple(point) for point in curves[i])),
            attrs={key: json.loads(text) for key, text in attrs[i]},
            params={name: _external(value, text) for name, value, text in params[i]},
            cost=values.get(i, {}).get(1),
            outside=outside.get(i),
        )
        for i in trial_ids
    ]


def _external(value: float, distribution: str) -> Any:
    """Return a stored parameter as it was drawn: Optuna keeps the index of a choice and every number as float."""
    known = json.loads(distribution)
    if known["name"] == "CategoricalDistribution":
        return known["attributes"]["choices"][int(value)]
    return int(value) if known["name"] == "IntDistribution" else value
