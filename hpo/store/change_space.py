"""Another space for a study in progress: trials that fit stay as history, others are hidden, nothing is deleted.

Samplers group trials by their distributions, so a trial that stays is given the parameters and distributions with
which the new space draws its config. A trial that the new space cannot draw stays as it is and is marked.
"""

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
from hpo.optuna_compat import trial_id as id_of_trial
from hpo.space import SearchSpace
from hpo.store import admin, studies
from hpo.store.database import schema, trial_rows
from hpo.store.database.connect import Store
from hpo.store.database.study_rows import load_attributes, write_attributes
from hpo.store.record import FINISHED, State, StudyAttributes, TrialAttributes
from hpo.store.studies import StudyRecord
from hpo.suggesters import FixedSuggester
from hpo.transfer import SAME_STUDY, draws_for

_FEASIBLE_NOW = "it broke constraints that no longer hold, and was not trained"
_CHUNK = 500


@dataclass(frozen=True)
class SpaceSet:
    """What became of a study's trials when its space was changed."""

    kept: list[int] = field(default_factory=list)
    """Finished trials that the new space can draw: the sampler's history."""
    hidden: dict[int, str] = field(default_factory=dict)
    """Finished trials that it cannot, by number, and why."""
    waiting: list[int] = field(default_factory=list)
    """Waiting trials that fit."""
    dropped: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Waiting trials that do not fit, by number: what they were, and why they do not fit."""
    added: list[str] = field(default_factory=list)
    """Baselines of the new space that now wait to be tried."""


def change_space(store: Store, name: str, space_name: str, space: SearchSpace) -> SpaceSet:
    """Give a study another space, whole or not at all.

    Raises: StudyError if there is no such study, if workers run, or if the space cannot be mapped: another
    data set, split, metric or family of networks, or nothing of what was trained fits. UsageError: a grid without end.
    """
    study = studies.load_study(store, name)
    if space.data is None:
        space = space.model_copy(update={"data": study.space.data})
    _check_mappable(study, space)
    if study.recipe.sampler.name == "grid":
        grid(study.with_space(space).effective_space)
    still = admin.check_at_rest(store, name, study.study_id)
    with store.write() as connection:
        store.lock_study(connection, study.study_id)
        admin.reap_all(store, connection, name, study.study_id, still)
        if load_attributes(connection, study.study_id).is_linked:
            raise StudyError(f'Study "{name}" trains trials of another again and draws none: its space is fixed.')
        trials = trial_rows.load_trials(connection, study.study_id)
        mapping = _Mapping(study, space)
        for trial in trials:
            mapping.add(trial)
        result = mapping.result
        if result.hidden and not result.kept:
            number, why = next(iter(result.hidden.items()))
            raise StudyError(
                f'Study "{name}": none of its {len(result.hidden)} finished trials fits the new space '
                f"(trial {number}: {why}). Start another study: hpo run --space {space_name} --study NEW_NAME"
            )
        _delete_stale(connection, [id_of_trial(trial) for trial in trials], mapping.redrawn)
        trial_rows.write(store, connection, mapping.changes)
        _add_baselines(store, connection, study.study_id, space, result)
        write_attributes(
            connection,
            study.study_id,
            StudyAttributes.space.entry(documents.dump(space)),
            StudyAttributes.space_name.entry(space_name),
        )
        studies.invalidate_caches(connection, study.study_id)
    return result


def _check_mappable(study: StudyRecord, space: SearchSpace) -> None:
    before, now = study.space, space
    differences = documents.differences("data", documents.dump(before).get("data"), documents.dump(now).get("data"))
    differences += documents.differences("split", documents.dump(before.split), documents.dump(now.split))
    differences += documents.differences("metric", study.metric, study.with_space(space).metric)
    differences += documents.differences("family", before.family, now.family)
    if differences:
        raise StudyError(
            f'Study "{study.name}": its trials cannot be mapped to the new space ({"; ".join(differences)}): their '
            f"scores would not compare. Start another study: hpo run --space FILE --study NEW_NAME"
        )


class _Mapping:
    """What becomes of each trial in the new space, and the changes that follow from it."""

    def __init__(self, study: StudyRecord, space: SearchSpace) -> None:
        self.study, self.space = study, study.with_space(space).effective_space
        self.result = SpaceSet()
        self.changes = trial_rows.Changes()
        self.redrawn: list[int] = []
        """Ids of the trials whose parameters are replaced by those of the new space."""

    def add(self, trial: FrozenTrial) -> None:
        """Map one trial. An excused one keeps its record as it is, unless it was infeasible."""
        attributes = TrialAttributes.of(trial)
        if attributes.excused is not None and attributes.infeasible is None:
            return
        try:
            draws = self._draws(trial, attributes)
        except (ValueError, HpoError) as error:  # the latter from a space in Python
            self._leave_out(trial, attributes, str(error).removesuffix("."))
        else:
            self._keep(trial, attributes, draws)

    def _draws(self, trial: FrozenTrial, attributes: TrialAttributes) -> dict[str, Any]:
        """Return the draws that give the trial's config in the new space. Raises: ValueError if nothing does."""
        config, drawn = _config_of(self.study, trial.number, attributes, trial.params)
        draws = draws_for(self.space, config, SAME_STUDY, drawn)
        broken = self.space.constraints.broken(_costs(attributes))
        if (attributes.infeasible is not None) != bool(broken):
            raise ValueError(broken or _FEASIBLE_NOW)
        return draws

    def _leave_out(self, trial: FrozenTrial, attributes: TrialAttributes, why: str) -> None:
        """Hide an ended trial from samplers; fail one that waits."""
        key = id_of_trial(trial)
        if trial.state.is_finished():
            self.changes.note(key, TrialAttributes.outside.entry(why))
            if trial.state.name in FINISHED:
                self.result.hidden[trial.number] = why
        else:
            self.result.dropped[trial.number] = (_kind(attributes), why)
            reason = f"dropped: it does not fit the new space: {why}"
            self.changes.note(key, TrialAttributes.excused.entry(reason))
            self.changes.states[key] = (State.FAIL, ())

    def _keep(self, trial: FrozenTrial, attributes: TrialAttributes, draws: dict[str, Any]) -> None:
        """Give a trial the parameters and constraints of the new space."""
        key, costs = id_of_trial(trial), _costs(attributes)
        if trial.state.name in FINISHED:
            self.result.kept.append(trial.number)
        elif not trial.state.is_finished():
            self.result.waiting.append(trial.number)
        constraints = self.space.constraints
        if trial.state.is_finished() or constraints.limits.keys() <= costs.keys():
            for name, excess in constraints.excess(costs).items():
                self.changes.note(key, TrialAttributes.constraints.entry(f"max_{name}", excess))
        if attributes.fixed_params is not None:
            self.changes.note(key, TrialAttributes.fixed_params.entry(draws))
        if trial.params:
            self.redrawn.append(key)
            self.changes.params |= dict(_parameters(self.space, draws, key))


def _config_of(
    study: StudyRecord, number: int, attributes: TrialAttributes, params: dict[str, Any]
) -> tuple[TrialConfig, dict[str, Any]]:
    """Return a trial's config, drawn or to be drawn, and its draws. Raises: ValueError if there is none."""
    if attributes.config is not None:
        return attributes.training_config(number), params
    draws = attributes.fixed_params or {}
    return study.effective_space.draw(FixedSuggester(draws), seed=0), draws


def _costs(attributes: TrialAttributes) -> Costs:
    """Return the known costs of a trial: measured for constraints, or counted when it was trained."""
    known: Costs = dict(attributes.costs or {})
    if attributes.parameters is not None:
        known.setdefault("parameters", attributes.parameters)
    return known


def _kind(attributes: TrialAttributes) -> str:
    if attributes.baseline is not None:
        return f"baseline {attributes.baseline}"
    return "warm start" if attributes.warm_from is not None else "waiting trial"


def _parameters(
    space: SearchSpace, draws: dict[str, Any], trial_id: int
) -> Iterator[tuple[tuple[int, str], tuple[float, str]]]:
    """Yield the parameters of a walk as they are stored, with the distributions that the space draws them from."""
    fixed = FixedTrial(draws)
    space.draw(fixed, seed=0)
    for name, distribution in fixed.distributions.items():
        internal = distribution.to_internal_repr(fixed.params[name])
        yield (trial_id, name), trial_rows.param_change(internal, distribution)


def _delete_stale(connection: Connection, all_ids: list[int], redrawn: list[int]) -> None:
    """Delete the old parameters of trials that get new ones, and the attributes that depend on the old space."""
    params, attrs = schema.trial_params.c, schema.trial_system_attributes.c
    for ids in _chunks(redrawn):
        connection.execute(sa.delete(schema.trial_params).where(params.trial_id.in_(ids)))
    groups = (TrialAttributes.tpe, TrialAttributes.constraints)
    stale = sa.or_(attrs.key == TrialAttributes.outside.key, *(attrs.key.startswith(group.prefix) for group in groups))
    for ids in _chunks(all_ids):
        connection.execute(sa.delete(schema.trial_system_attributes).where(attrs.trial_id.in_(ids), stale))


def _chunks(ids: list[int]) -> Iterator[list[int]]:
    return (ids[i : i + _CHUNK] for i in range(0, len(ids), _CHUNK))


def _add_baselines(store: Store, connection: Connection, study_id: int, space: SearchSpace, result: SpaceSet) -> None:
    """Enqueue the baselines of the new space that were neither tried nor wait."""
    known = []
    for trial in trial_rows.load_trials(connection, study_id):
        attributes = TrialAttributes.of(trial)
        if attributes.baseline is not None and attributes.excused is None:
            known.append((attributes.baseline, attributes.fixed_params or trial.params))
    for baseline in space.baselines:
        if (baseline.name, baseline.values()) not in known:
            studies.add_baseline(store, connection, study_id, baseline)
            result.added.append(baseline.name)
