"""Another space for a study in progress: what still fits stays as history, what does not is hidden, nothing is lost.

Samplers group trials by their distributions, so a trial that stays is given the parameters and distributions with
which the new space draws its config. A trial that the new space cannot draw keeps what it has and is marked.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from optuna.trial import FixedTrial, FrozenTrial
from sqlalchemy.engine import Connection

from hpo import documents
from hpo.config import TrialConfig
from hpo.constraints import Costs
from hpo.errors import HpoError, StudyError
from hpo.grid import grid
from hpo.ranges import FixedSuggester
from hpo.space import SearchSpace
from hpo.store import admin, studies
from hpo.store.database import schema, trial_rows
from hpo.store.database.connect import Store
from hpo.store.leases.stopping import CONFIRMS, CONSTRAINT, COSTS, EXCUSED, INFEASIBLE, OUTSIDE
from hpo.store.studies import StudyRecord
from hpo.transfer import SAME_STUDY, draws_for

_OF_ONE_DRAW = "tpe:"
"""System attributes under which TPE tells other workers what it is about to draw."""
_FEASIBLE_NOW = "it broke constraints that no longer hold, and was not trained"
_CHUNK = 500


@dataclass(frozen=True)
class SpaceSet:
    """What became of a study's trials when it was given another space."""

    kept: list[int] = field(default_factory=list)
    """Finished trials that the new space can draw: the sampler's history."""
    hidden: dict[int, str] = field(default_factory=dict)
    """Finished trials that it cannot, by number, and why."""
    waiting: list[int] = field(default_factory=list)
    """Trials that wait to be run, and fit."""
    dropped: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Trials that waited and do not fit, by number: what they were, and why they do not."""
    added: list[str] = field(default_factory=list)
    """Baselines of the new space that now wait to be tried."""


def change_space(store: Store, name: str, space_name: str, space: SearchSpace) -> SpaceSet:
    """Give a study another space, whole or not at all.

    Raises: StudyError if there is no such study, if workers are at it, or if the space cannot be mapped: another
    data set, split, metric or family of networks, or nothing of what was trained fits. UsageError: a grid without end.
    """
    study = studies.load_study(store, name)
    if space.data is None:
        space = space.model_copy(update={"data": study.space.data})
    _check_mappable(study, space)
    if study.recipe.sampler.name == "grid":
        grid(study.with_space(space).effective_space)
    standing = admin.check_at_rest(store, name, study.study_id)
    with store.write() as connection:
        store.lock_study(connection, study.study_id)
        admin.give_up(store, connection, name, study.study_id, standing)
        if CONFIRMS in studies.user_attrs(connection, study.study_id):
            raise StudyError(f'Study "{name}" trains another\'s best again and draws nothing: its space says nothing.')
        found = trial_rows.load_trials(connection, study.study_id)
        result, changes, fitting = _sorted_out(study, space, found)
        if result.hidden and not result.kept:
            number, why = next(iter(result.hidden.items()))
            raise StudyError(
                f'Study "{name}": none of its {len(result.hidden)} finished trials fits the new space '
                f"(trial {number}: {why}). Begin another study: hpo run --space {space_name} --study NEW_NAME"
            )
        _forget(connection, [t._trial_id for t in found], fitting)
        trial_rows.write(store, connection, changes)
        _add_baselines(store, connection, study.study_id, space, result)
        _put(connection, study.study_id, {"space": documents.dump(space), "space_name": space_name})
    return result


def _check_mappable(study: StudyRecord, space: SearchSpace) -> None:
    before, now = study.space, space
    found = documents.differences("data", documents.dump(before).get("data"), documents.dump(now).get("data"))
    found += documents.differences("split", documents.dump(before.split), documents.dump(now.split))
    found += documents.differences("metric", study.metric, study.with_space(space).metric)
    found += documents.differences("family", before.family, now.family)
    if found:
        raise StudyError(
            f'Study "{study.name}": its trials cannot be mapped to the new space ({"; ".join(found)}): their scores '
            f"would not compare. Begin another study: hpo run --space FILE --study NEW_NAME"
        )


def _sorted_out(
    study: StudyRecord, space: SearchSpace, found: list[FrozenTrial]
) -> tuple[SpaceSet, trial_rows.Changes, list[int]]:
    """Return what becomes of each trial, what is to be written, and the ids of those with new parameters."""
    walked = study.with_space(space).effective_space
    result, changes, fitting = SpaceSet(), trial_rows.Changes(), []
    for trial in found:
        rejected = INFEASIBLE in trial.user_attrs
        if EXCUSED in trial.user_attrs and not rejected:  # its record stays as it was
            continue
        key, costs = trial._trial_id, _costs(trial)
        try:
            config, drawn = _config_of(study, trial)
            draws = draws_for(walked, config, SAME_STUDY, drawn)
            broken = walked.constraints.broken(costs)
            if rejected != bool(broken):
                raise ValueError(broken or _FEASIBLE_NOW)
        except (ValueError, HpoError) as error:  # the latter from a space in Python
            why = str(error).removesuffix(".")
            if trial.state.is_finished():
                changes.system_attrs[key, OUTSIDE] = json.dumps(why)
                if trial.state.name in schema.FINISHED:
                    result.hidden[trial.number] = why
            else:
                result.dropped[trial.number] = (_what(trial), why)
                changes.user_attrs[key, EXCUSED] = json.dumps(f"dropped: it does not fit the new space: {why}")
                changes.states[key] = ("FAIL", ())
            continue
        if trial.state.name in schema.FINISHED:
            result.kept.append(trial.number)
        elif not trial.state.is_finished():
            result.waiting.append(trial.number)
        if trial.state.is_finished() or walked.constraints.limits.keys() <= costs.keys():
            for name, excess in walked.constraints.excess(costs).items():
                changes.system_attrs[key, f"{CONSTRAINT}max_{name}"] = json.dumps(excess)
        if "fixed_params" in trial.system_attrs:
            changes.system_attrs[key, "fixed_params"] = json.dumps(draws)
        if trial.params:
            fitting.append(key)
            changes.params |= dict(_parameters(walked, draws, key))
    return result, changes, fitting


def _config_of(study: StudyRecord, trial: FrozenTrial) -> tuple[TrialConfig, dict[str, Any]]:
    """Return a trial's config, drawn or to be drawn, and its draws. Raises: ValueError if there is none."""
    stored = trial.user_attrs.get("config")
    if stored is not None:
        return TrialConfig.from_dict(stored, f"trial {trial.number}: config"), trial.params
    draws = trial.system_attrs.get("fixed_params", {})
    return study.effective_space.draw(FixedSuggester(draws), seed=0), draws


def _costs(trial: FrozenTrial) -> Costs:
    """Return what is known of a trial's costs: measured for constraints, or counted when it was trained."""
    known: Costs = dict(trial.user_attrs.get(COSTS, {}))
    if "parameters" in trial.user_attrs:
        known.setdefault("parameters", trial.user_attrs["parameters"])
    return known


def _what(trial: FrozenTrial) -> str:
    if "baseline" in trial.user_attrs:
        return f"baseline {trial.user_attrs['baseline']}"
    return "warm start" if "warm_from" in trial.user_attrs else "waiting trial"


def _parameters(
    space: SearchSpace, draws: dict[str, Any], trial_id: int
) -> Iterator[tuple[tuple[int, str], tuple[float, str]]]:
    """Yield the parameters of a walk as they are stored, with the distributions that the space draws them from."""
    fixed = FixedTrial(draws)
    space.draw(fixed, seed=0)
    for name, distribution in fixed.distributions.items():
        internal = distribution.to_internal_repr(fixed.params[name])
        yield (trial_id, name), trial_rows.param_change(internal, distribution)


def _forget(connection: Connection, all_ids: list[int], fitting: list[int]) -> None:
    """Delete the old parameters of trials that get new ones, and what was noted for the old space."""
    params, attrs = schema.trial_params.c, schema.trial_system_attributes.c
    for ids in _chunks(fitting):
        connection.execute(sa.delete(schema.trial_params).where(params.trial_id.in_(ids)))
    noted = (attrs.key.startswith(start) for start in (_OF_ONE_DRAW, CONSTRAINT))
    stale = sa.or_(attrs.key == OUTSIDE, *noted)
    for ids in _chunks(all_ids):
        connection.execute(sa.delete(schema.trial_system_attributes).where(attrs.trial_id.in_(ids), stale))


def _chunks(ids: list[int]) -> Iterator[list[int]]:
    return (ids[i : i + _CHUNK] for i in range(0, len(ids), _CHUNK))


def _add_baselines(store: Store, connection: Connection, study_id: int, space: SearchSpace, result: SpaceSet) -> None:
    """Have the baselines of the new space that were not tried, and do not wait, wait to be tried."""
    there = [
        (trial.user_attrs["baseline"], _known_draws(trial))
        for trial in trial_rows.load_trials(connection, study_id)
        if "baseline" in trial.user_attrs and EXCUSED not in trial.user_attrs
    ]
    for baseline in space.baselines:
        if (baseline.name, baseline.values()) not in there:
            studies.add_baseline(store, connection, study_id, baseline)
            result.added.append(baseline.name)


def _known_draws(trial: FrozenTrial) -> dict[str, Any]:
    draws: dict[str, Any] = trial.system_attrs.get("fixed_params") or trial.params
    return draws


def _put(connection: Connection, study_id: int, attrs: dict[str, Any]) -> None:
    table, ours = schema.study_user_attributes, schema.hpo_studies
    for key, value in attrs.items():
        of_key = sa.and_(table.c.study_id == study_id, table.c.key == key)
        connection.execute(sa.delete(table).where(of_key))
        connection.execute(sa.insert(table), {"study_id": study_id, "key": key, "value_json": json.dumps(value)})
    changed = sa.update(ours).where(ours.c.study_id == study_id)
    connection.execute(changed.values(revision=ours.c.revision + 1))
