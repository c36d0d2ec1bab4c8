"""Confirmation: the best configurations and the baseline are trained again on fresh seeds and fresh rows.

A search returns the luckiest of many noisy scores. Here its best configurations are trained again, each on seeds and
on random cuts into training and validation rows that played no part in choosing it, all configurations on the same
cuts. The trainings are trials of a linked study `NAME-confirm`, run by the same workers and with the same tolerance of
faults. `hpo.results.candidates` compares what they show.
"""

import dataclasses
import json
import shlex
from collections.abc import Iterable

from hpo.config import WORST
from hpo.errors import StudyError
from hpo.results import linked_study
from hpo.results.candidates import Confirmation, compare
from hpo.results.linked_study import CONFIRMATION
from hpo.store import queries, studies
from hpo.store.database import trial_rows
from hpo.store.database.conditions import count, is_of
from hpo.store.database.connect import Store
from hpo.store.record import FINISHED, UNFINISHED, Repeat, State, TrialAttributes
from hpo.store.studies import StudyRecord
from hpo.store.views import TrialView
from hpo.strategy.samplers import derived_seed


def prepare(store: Store, study: StudyRecord, top: int, seeds: int, *, same_cut: bool = False) -> StudyRecord:
    """Make or extend the study that confirms another: the `top` best configurations and the baseline, `seeds` times.

    With two objectives, the best are those of the Pareto front, from the best by the metric down. Each time, the
    validation rows are another random cut, or with `same_cut` the study's own. Trainings that exist already stay and
    count, and those that are added are cut like them. Raises: StudyError if there is nothing to confirm, if another
    study has the name, or for `same_cut` where trainings on other cuts exist.
    """
    linked_study.refuse_linked(store, study)
    chosen = _chosen(store, study, top)
    confirming = linked_study.make(store, study, CONFIRMATION, trials=len(chosen) * seeds)
    existing = [trial for _, trial in linked_study.trainings(store, confirming)]
    fresh = has_fresh_cuts(study, existing) if existing else not same_cut
    if fresh and same_cut:
        raise StudyError(
            f'Study "{confirming.name}" has trainings on other cuts than the study\'s own. Leave out --same-cut, or '
            f"begin anew: hpo studies delete {shlex.quote(confirming.name)}"
        )
    total = _enqueue(store, study, confirming, chosen, seeds, fresh=fresh)
    studies.update_budget(store, confirming, trials=total)
    return studies.load_study(store, confirming.name)


def _chosen(store: Store, study: StudyRecord, top: int) -> list[TrialView]:
    """Return the trials to confirm, the baseline last. Raises: StudyError if there are none."""
    with store.read() as connection:
        best = queries.front(connection, study.study_id) or queries.best_trials(connection, study.study_id, 20 * top)
        baseline = queries.baseline_trial(connection, study.study_id)
    chosen = distinct(best)[:top]
    if not chosen:
        raise StudyError(f'Study "{study.name}" has no complete trial yet. Continue it: hpo run --study {study.name}')
    return chosen if baseline is None else distinct([*chosen, baseline])


def has_fresh_cuts(study: StudyRecord, trainings: Iterable[TrialView]) -> bool:
    """Say whether trainings of a confirmation validate on other rows than the study did."""
    return any(trial.config.split != study.space.split for trial in trainings)


def _enqueue(
    store: Store, study: StudyRecord, confirming: StudyRecord, chosen: list[TrialView], seeds: int, *, fresh: bool
) -> int:
    """Add the trainings that are not listed yet; return the number of all trainings, finished ones included."""
    with store.write() as connection:
        store.lock_study(connection, confirming.study_id)
        listed = {source for source, _ in linked_study.trainings(store, confirming)}
        sources = trial_rows.load_some(connection, [trial.trial_id for trial in chosen])
        for repeat in range(seeds):  # all configurations once, then all again: so half of the trainings are a result
            for source in sources:
                if Repeat(source.number, repeat) not in listed:
                    seed = derived_seed(study.recipe.seed, f"confirm/{source.number}", repeat)
                    config = TrialAttributes.of(source).training_config(source.number)
                    config = study.full(config).with_seed(seed)
                    if fresh:
                        cut = derived_seed(study.recipe.seed, "confirm/cut", repeat)
                        config = dataclasses.replace(config, split=dataclasses.replace(config.split, seed=cut))
                    entries = [
                        TrialAttributes.config.entry(config.to_dict()),
                        TrialAttributes.confirms.entry(Repeat(source.number, repeat)),
                    ]
                    trial_rows.add_waiting(store, connection, confirming.study_id, source, entries)
        return count(connection, is_of(confirming.study_id, FINISHED + UNFINISHED))


def distinct(trials: list[TrialView]) -> list[TrialView]:
    """Return trials without those that differ from an earlier one in nothing but their seed."""
    kept: dict[str, TrialView] = {}
    for trial in trials:
        config = trial.config.with_seed(0).to_dict()
        kept.setdefault(json.dumps(config, sort_keys=True), trial)
    return list(kept.values())


def find(store: Store, study: StudyRecord) -> StudyRecord | None:
    """Return the study that confirms another, if there is one."""
    return linked_study.find(store, study, CONFIRMATION)


def evaluate(store: Store, study: StudyRecord) -> Confirmation | None:
    """Return the results of a study's confirmation; None if no configuration was trained again twice."""
    confirming = find(store, study)
    if confirming is None:
        return None
    values: dict[int, dict[int, float]] = {}
    errors: dict[int, list[float]] = {}
    worst = WORST[study.metric]  # the value of a training that diverged: such a configuration is no winner
    trainings = linked_study.trainings(store, confirming)
    for source, trial in trainings:
        if trial.state in FINISHED:
            value = trial.value if trial.state == State.COMPLETE and trial.value is not None else worst
            values.setdefault(source.trial, {})[source.repeat] = value
            error = trial.attributes.sampling_error
            errors.setdefault(source.trial, []).extend([] if error is None else [error])
    samples = {number: seen for number, seen in values.items() if len(seen) > 1}
    if not samples:
        return None
    with store.read() as connection:
        ids = {number: queries.trial_id_of(connection, study.study_id, number) for number in samples}
        sources = {number: queries.trial(connection, key) for number, key in ids.items() if key is not None}
    fresh = has_fresh_cuts(study, (trial for _, trial in trainings))
    missing = len({source for source, _ in trainings}) - sum(map(len, values.values()))
    return compare(confirming.name, study, sources, samples, errors, fresh_cuts=fresh, missing=missing)
