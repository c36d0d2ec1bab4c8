"""Reading of studies and trials, without changing them: plain queries, no optuna, quick on studies of any size."""

import json
from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hpo.store.attributes import Attribute
from hpo.store.database import schema
from hpo.store.database.conditions import count, has, is_excused, is_of, is_outside
from hpo.store.database.study_rows import load_attributes
from hpo.store.leases import stopping
from hpo.store.record import ENDED, FINISHED, State, TrialAttributes
from hpo.store.views import StudyView, TrialView


def studies(connection: Connection) -> list[StudyView]:
    """Return all studies of a store, in the order of their creation."""
    ids = connection.execute(sa.select(schema.studies.c.study_id).order_by(schema.studies.c.study_id)).scalars()
    return [study(connection, study_id) for study_id in list(ids)]


def study(connection: Connection, study_id: int) -> StudyView:
    """Return one study."""
    name = connection.execute(
        sa.select(schema.studies.c.study_name).where(schema.studies.c.study_id == study_id)
    ).scalar_one()
    columns = schema.trials.c
    rows = connection.execute(
        sa.select(columns.state, sa.func.count()).where(columns.study_id == study_id).group_by(columns.state)
    )
    counts = dict.fromkeys(State, 0) | {State(state): int(number) for state, number in rows}
    budget_row = connection.execute(
        sa.select(schema.hpo_studies).where(schema.hpo_studies.c.study_id == study_id)
    ).first()
    if budget_row is not None:
        counts[State.FAIL] = stopping.failed_trials(connection, study_id)
    workers = connection.execute(
        sa.select(schema.hpo_workers.c.state_json).where(schema.hpo_workers.c.study_id == study_id)
    )
    return StudyView(
        study_id=study_id,
        name=name,
        counts=counts,
        best_value=stopping.best_value(connection, study_id)[0],
        attributes=load_attributes(connection, study_id),
        budget=stopping.budget_of(connection, study_id)[0] if budget_row is not None else None,
        active_seconds=budget_row.active_seconds if budget_row is not None else None,
        over=stopping.over(connection, study_id) if budget_row is not None else None,
        workers=tuple(json.loads(text) for text in workers.scalars()),
        infeasible=stopping.infeasible_draws(connection, study_id),
        drawn_at_random=count(connection, sa.and_(is_of(study_id), has(TrialAttributes.drawn_at_random))),
        revived=stopping.count_revived(connection, study_id),
        graph_failures=count(connection, sa.and_(is_of(study_id), has(TrialAttributes.graph_failure))),
        outside=count(connection, sa.and_(is_of(study_id, FINISHED), is_outside())),
    )


def best_trials(connection: Connection, study_id: int, limit: int, *, outside: bool = False) -> list[TrialView]:
    """Return the best complete trials of the space (or of those outside it), the best first.

    Of equals the one that costs less, then the earlier.
    """
    columns, values, costs = schema.trials.c, schema.trial_values.c, schema.trial_values.alias().c
    cost = sa.select(costs.value).where(costs.trial_id == columns.trial_id, costs.objective == 1).scalar_subquery()
    query = (
        sa.select(columns.trial_id)
        .where(is_of(study_id, [State.COMPLETE]), is_outside() if outside else sa.not_(is_outside()))
        .where(columns.trial_id == values.trial_id, values.objective == 0)
        .order_by(values.value.desc(), cost, columns.number)
        .limit(limit)
    )
    return trials(connection, connection.execute(query).scalars())


def front(connection: Connection, study_id: int) -> list[TrialView]:
    """Return the Pareto front of a study with two objectives, the best by the metric first: each next one costs less.

    Of equals in both the earlier. Empty for a study with one objective.
    """
    columns, values, costs = schema.trials.c, schema.trial_values.c, schema.trial_values.alias().c
    query = (
        sa.select(columns.trial_id, costs.value)
        .where(is_of(study_id, [State.COMPLETE]), sa.not_(is_outside()))
        .where(columns.trial_id == values.trial_id, values.objective == 0)
        .where(columns.trial_id == costs.trial_id, costs.objective == 1)
        .order_by(values.value.desc(), costs.value, columns.number)
    )
    ids, lowest = [], float("inf")
    for trial_id, cost in connection.execute(query).fetchall():
        if cost < lowest:
            ids.append(trial_id)
            lowest = cost
    return trials(connection, ids)


def all_trials(connection: Connection, study_id: int) -> list[TrialView]:
    """Return all trials of a study, in the order of their numbers."""
    columns = schema.trials.c
    query = sa.select(columns.trial_id).where(columns.study_id == study_id).order_by(columns.number)
    return trials(connection, connection.execute(query).scalars())


def running_trials(connection: Connection, study_id: int) -> list[TrialView]:
    """Return the trials that are being trained."""
    columns = schema.trials.c
    query = sa.select(columns.trial_id).where(is_of(study_id, [State.RUNNING])).order_by(columns.number)
    return trials(connection, connection.execute(query).scalars())


def best_so_far(connection: Connection, study_id: int) -> list[float]:
    """Return the best value of the complete trials after each finished trial, in the order in which they finished.

    Those before the first complete one are left out.
    """
    columns, values = schema.trials.c, schema.trial_values.c
    # One column of plain numbers: the states of 100,000 rows would take half a second to decode.
    query = (
        sa.select(sa.case((columns.state == State.COMPLETE, values.value), else_=float("-inf")))
        .where(is_of(study_id, FINISHED), sa.not_(is_outside()))
        .where(columns.trial_id == values.trial_id, values.objective == 0)
        .order_by(columns.datetime_complete, columns.number)
    )
    history = accumulate((row[0] for row in connection.execute(query).fetchall()), max)
    return [value for value in history if value > float("-inf")]


def last_ended(connection: Connection, study_id: int, limit: int) -> list[TrialView]:
    """Return the trials that ended last, the latest first; without those that were continued or excused."""
    columns = schema.trials.c
    query = (
        sa.select(columns.trial_id)
        .where(is_of(study_id, ENDED), sa.not_(is_excused()))
        .order_by(columns.datetime_complete.desc(), columns.number.desc())
        .limit(limit)
    )
    return trials(connection, connection.execute(query).scalars())


def baseline_trial(connection: Connection, study_id: int) -> TrialView | None:
    """Return the best finished baseline of a study."""
    query = sa.select(schema.trials.c.trial_id).where(is_of(study_id, FINISHED), has(TrialAttributes.baseline))
    baselines = trials(connection, connection.execute(query).scalars())
    return max((t for t in baselines if t.value is not None), key=lambda t: t.value or 0.0, default=None)


def trials_with(connection: Connection, study_id: int, attribute: Attribute[Any]) -> list[TrialView]:
    """Return the trials that have an attribute, in the order of their numbers."""
    columns = schema.trials.c
    query = sa.select(columns.trial_id).where(is_of(study_id), has(attribute)).order_by(columns.number)
    return trials(connection, connection.execute(query).scalars())


def pruned_trials(connection: Connection, study_id: int) -> list[TrialView]:
    """Return the pruned trials of the space that had no second chance, in the order of their numbers."""
    columns = schema.trials.c
    pruned = sa.select(columns.trial_id).where(is_of(study_id, [State.PRUNED]), sa.not_(is_outside()))
    given = trials_with(connection, study_id, TrialAttributes.revives)
    revived = {each.attributes.revives for each in given if each.state in FINISHED}
    ended = trials(connection, connection.execute(pruned.order_by(columns.number)).scalars())
    return [each for each in ended if each.number not in revived and each.attributes.revives is None]


def failure_kinds(connection: Connection, study_id: int) -> dict[str, int]:
    """Return how many trials ended by each kind of failure."""
    attrs = schema.trial_user_attributes.c
    query = sa.select(attrs.value_json).where(
        attrs.trial_id == schema.trials.c.trial_id, is_of(study_id), attrs.key == TrialAttributes.failure.key
    )
    kinds: dict[str, int] = defaultdict(int)
    for text in connection.execute(query).scalars():
        kinds[json.loads(text)["kind"]] += 1
    return dict(kinds)


def training_seconds(connection: Connection, study_id: int) -> float:
    """Return the seconds of training of all trials that have ended."""
    attrs = schema.trial_user_attributes.c
    query = sa.select(sa.func.sum(sa.cast(attrs.value_json, sa.Float))).where(
        attrs.trial_id == schema.trials.c.trial_id, is_of(study_id), attrs.key == TrialAttributes.seconds.key
    )
    return float(connection.execute(query).scalar() or 0.0)


def trial_id_of(connection: Connection, study_id: int, number: int) -> int | None:
    """Return the id of a trial by its number; None if there is none."""
    query = sa.select(schema.trials.c.trial_id).where(is_of(study_id), schema.trials.c.number == number)
    trial_id: int | None = connection.execute(query).scalar()
    return trial_id


def trial(connection: Connection, trial_id: int) -> TrialView:
    """Return one trial."""
    return trials(connection, [trial_id])[0]


def trials(connection: Connection, trial_ids: Iterable[int]) -> list[TrialView]:
    """Return trials in the order of the ids given."""
    ids = list(trial_ids)
    if not ids:
        return []

    def rows(table: sa.Table, *names: str) -> dict[int, list[Any]]:
        by_trial: dict[int, list[Any]] = defaultdict(list)
        chosen = sa.select(table.c.trial_id, *(table.c[name] for name in names))
        query = chosen.where(table.c.trial_id.in_(ids)).order_by(next(iter(table.primary_key)))
        for row in connection.execute(query):
            by_trial[row[0]].append(row[1:])
        return by_trial

    main = rows(schema.trials, "number", "state")
    values = rows(schema.trial_values, "objective", "value")
    curves = rows(schema.trial_intermediate_values, "step", "intermediate_value")
    user = rows(schema.trial_user_attributes, "key", "value_json")
    system = rows(schema.trial_system_attributes, "key", "value_json")
    params = rows(schema.trial_params, "param_name", "param_value", "distribution_json")
    views = []
    for i in ids:
        objectives = dict(tuple(row) for row in values[i])
        views.append(
            TrialView(
                trial_id=i,
                number=main[i][0][0],
                state=State(main[i][0][1]),
                value=objectives.get(0),
                curve=dict(sorted(tuple(point) for point in curves[i])),
                attributes=TrialAttributes(_parsed(user[i]), _parsed(system[i])),
                params={name: _external(value, text) for name, value, text in params[i]},
                cost=objectives.get(1),
            )
        )
    return views


def _parsed(rows: list[Any]) -> dict[str, Any]:
    return {key: json.loads(text) for key, text in rows}


def _external(value: float, distribution: str) -> Any:
    """Return a stored parameter as it was drawn: Optuna stores the index of a choice, and every number as float."""
    content = json.loads(distribution)
    if content["name"] == "CategoricalDistribution":
        return content["attributes"]["choices"][int(value)]
    return int(value) if content["name"] == "IntDistribution" else value
