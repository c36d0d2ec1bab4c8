"""Confirmation: the best configurations and the baseline are trained again on fresh seeds, and compared.

A search returns the luckiest of many noisy scores. Here its best configurations are trained again, each on seeds
that played no part in choosing it, as trials of a linked study `NAME-confirm`, by the same workers and with the same
tolerance of faults. The winner is the one with the highest lower confidence bound of its mean.
"""

import json
import statistics
from dataclasses import dataclass

import sqlalchemy as sa

from hpo import data
from hpo.config import WORST, TrialConfig
from hpo.constraints import Constraints
from hpo.errors import StudyError
from hpo.recipe import Budget, Fidelity, Pruner, Sampler
from hpo.results.intervals import Interval, anova_differs, dunnett_intervals, mean_interval, prediction_interval
from hpo.store import queries, studies
from hpo.store.database import schema, trial_rows
from hpo.store.database.conditions import count, is_of
from hpo.store.database.connect import Store
from hpo.store.database.study_rows import load_attributes
from hpo.store.record import FINISHED, UNFINISHED, Repeat, State, StudyAttributes, TrialAttributes
from hpo.store.studies import StudyRecord
from hpo.store.views import TrialView
from hpo.strategy.samplers import derived_seed

SUFFIX = "-confirm"


@dataclass(frozen=True)
class Candidate:
    """A configuration that was trained again, with its results in the study's metric."""

    number: int
    """Number of the trial in the study that was searched."""
    config: TrialConfig
    baseline: str | None
    """The baseline's name, if it is one."""
    searched: float
    """Value in the search."""
    values: tuple[float, ...]
    """Values on fresh seeds, in the seeds' order."""
    interval: Interval
    """Confidence interval of the mean."""
    gap: Interval | None
    """Difference of its mean and the baseline's; None for the baseline, and without one."""
    promise: Interval | None
    """Prediction interval of the test accuracy of one more training; None where another metric was searched."""

    @property
    def mean(self) -> float:
        """Mean over the fresh seeds."""
        return statistics.fmean(self.values)

    @property
    def luck(self) -> float:
        """The part of the value in the search that fresh seeds did not repeat."""
        return self.searched - self.mean


@dataclass(frozen=True)
class Confirmation:
    """The candidates, the one with the highest lower bound first."""

    study: str
    """Name of the study that holds the trainings."""
    candidates: tuple[Candidate, ...]
    verdict: str
    certain: bool
    """Whether the winner is better than the baseline beyond chance."""
    missing: int
    """Trainings that failed or are still to come."""

    @property
    def winner(self) -> Candidate:
        """The candidate to keep."""
        return self.candidates[0]


def prepare(store: Store, study: StudyRecord, top: int, seeds: int) -> StudyRecord:
    """Make or extend the study that confirms another: the `top` best configurations and the baseline, `seeds` times.

    With two objectives, the best are those of the Pareto front, from the best by the metric down. Trainings that
    exist already stay and count. Raises: StudyError if there is nothing to confirm, or if another study has the name.
    """
    chosen = _chosen(store, study, top)
    confirming = _confirming_study(store, study, trials=len(chosen) * seeds)
    total = _enqueue(store, study, confirming, chosen, seeds)
    studies.update_budget(store, confirming, trials=total)
    return studies.load_study(store, confirming.name)


def _chosen(store: Store, study: StudyRecord, top: int) -> list[TrialView]:
    """Return the trials to confirm, the baseline last. Raises: StudyError if there are none."""
    with store.read() as connection:
        if load_attributes(connection, study.study_id).confirms is not None:
            raise StudyError(f'Study "{study.name}" is itself a confirmation. Confirm the study that it belongs to.')
        best = queries.front(connection, study.study_id) or queries.best_trials(connection, study.study_id, 20 * top)
        baseline = queries.baseline_trial(connection, study.study_id)
    chosen = distinct(best)[:top]
    if not chosen:
        raise StudyError(f'Study "{study.name}" has no complete trial yet. Continue it: hpo run --study {study.name}')
    return chosen if baseline is None else distinct([*chosen, baseline])


def _confirming_study(store: Store, study: StudyRecord, trials: int) -> StudyRecord:
    """Return the study that confirms another; made with a budget of `trials` if there is none.

    Raises: StudyError if a study that has nothing to do with it has the name.
    """
    name = study.name + SUFFIX
    with store.read() as connection:
        exists = name in studies.names(connection)
    if not exists:
        recipe = study.recipe.model_copy(
            update={
                "title": f"Fresh seeds for the best of {study.name}",
                "objective": study.metric,
                "sampler": Sampler(name="random"),
                "pruner": Pruner(name="none"),
                "fidelity": Fidelity(),
                "budget": Budget(trials=trials, only_waiting=True),
            }
        )
        space = study.space.model_copy(update={"baselines": [], "constraints": Constraints()})
        confirms = StudyAttributes.confirms.entry(study.uid)
        studies.create(store, name, study.space_name, space, recipe, study.fingerprint, confirms)
    confirming = studies.load_study(store, name)
    with store.read() as connection:
        if load_attributes(connection, confirming.study_id).confirms != study.uid:
            raise StudyError(f'There is another study "{name}". Rename it: hpo studies rename {name} NEW_NAME')
    return confirming


def _enqueue(store: Store, study: StudyRecord, confirming: StudyRecord, chosen: list[TrialView], seeds: int) -> int:
    """Add the trainings that are not listed yet; return the number of all trainings, finished ones included."""
    with store.write() as connection:
        store.lock_study(connection, confirming.study_id)
        listed = {source for source, _ in _trainings(store, confirming)}
        sources = trial_rows.load_some(connection, [trial.trial_id for trial in chosen])
        for repeat in range(seeds):  # all configurations once, then all again: so half of the trainings are a result
            for source in sources:
                if Repeat(source.number, repeat) not in listed:
                    seed = derived_seed(study.recipe.seed, f"confirm/{source.number}", repeat)
                    config = TrialAttributes.of(source).training_config(source.number)
                    entries = [
                        TrialAttributes.config.entry(study.full(config).with_seed(seed).to_dict()),
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
    table = schema.study_user_attributes
    query = (
        sa.select(schema.studies.c.study_name)
        .join_from(table, schema.studies, table.c.study_id == schema.studies.c.study_id)
        .where(table.c.key == StudyAttributes.confirms.key, table.c.value_json == json.dumps(study.uid))
    )
    with store.read() as connection:
        name = connection.execute(query).scalar()
    return None if name is None else studies.load_study(store, name)


def evaluate(store: Store, study: StudyRecord) -> Confirmation | None:
    """Return the results of a study's confirmation; None if no configuration was trained on two fresh seeds."""
    confirming = find(store, study)
    if confirming is None:
        return None
    values: dict[int, dict[int, float]] = {}
    worst = WORST[study.metric]  # the value of a training that diverged: such a configuration is no winner
    trainings = _trainings(store, confirming)
    for source, trial in trainings:
        if trial.state in FINISHED:
            value = trial.value if trial.state == State.COMPLETE and trial.value is not None else worst
            values.setdefault(source.trial, {})[source.repeat] = value
    samples = {number: tuple(v for _, v in sorted(seen.items())) for number, seen in values.items() if len(seen) > 1}
    if not samples:
        return None
    with store.read() as connection:
        ids = {number: queries.trial_id_of(connection, study.study_id, number) for number in samples}
        sources = {number: queries.trial(connection, key) for number, key in ids.items() if key is not None}
    candidates = _candidates(study, sources, samples)
    candidates.sort(key=lambda c: (-c.interval.low, c.number))
    verdict, certain = _verdict(candidates)
    missing = len({source for source, _ in trainings}) - sum(map(len, values.values()))
    return Confirmation(confirming.name, tuple(candidates), verdict, certain, missing)


def _candidates(
    study: StudyRecord, sources: dict[int, TrialView], samples: dict[int, tuple[float, ...]]
) -> list[Candidate]:
    control = next((n for n, trial in sources.items() if trial.attributes.baseline is not None), None)
    others = [n for n in sources if n != control]
    gaps: dict[int, Interval] = {}
    if control is not None and others:
        gaps = dict(zip(others, dunnett_intervals([samples[n] for n in others], samples[control]), strict=True))
    candidates = []
    for number, trial in sources.items():
        config = study.full(trial.config)
        info = data.info(config.data)
        candidates.append(
            Candidate(
                number=number,
                config=config,
                baseline=trial.attributes.baseline,
                searched=trial.value if trial.value is not None else WORST[config.metric],
                values=samples[number],
                interval=mean_interval(samples[number]),
                gap=gaps.get(number),
                promise=prediction_interval(samples[number], config.split.rows_of(info.rows[0]), info.rows[1])
                if config.metric == "accuracy" and info.rows[1] > 0
                else None,
            )
        )
    return candidates


def _verdict(ranked: list[Candidate]) -> tuple[str, bool]:
    """Return the verdict on the winner in words, and whether it is better than the baseline beyond chance."""
    winner = ranked[0]
    if winner.baseline is not None:
        return "the baseline itself, with the highest lower bound: the search brought nothing better", False
    if winner.gap is None:
        if len(ranked) > 1 and anova_differs([c.values for c in ranked]):
            return "the best of those tried again; there is no baseline to compare it with", False
        return "not distinguishable from the others, and there is no baseline to compare with: no winner", False
    middle = (winner.gap.low + winner.gap.high) / 2
    size = f"{abs(middle):.4f} ± {winner.gap.half:.4f}"
    if winner.gap.low > 0:
        return f"better than the baseline by {size}", True
    return f"not distinguishable from the baseline (the gap is {'-' if middle < 0 else ''}{size}): no winner", False


def _trainings(store: Store, confirming: StudyRecord) -> list[tuple[Repeat, TrialView]]:
    """Return the trainings of a confirmation: the confirmed trial and repeat, and the trial that ran it.

    Left out are those that were continued or repeated under another number.
    """
    with store.read() as connection:
        trials = queries.trials_with(connection, confirming.study_id, TrialAttributes.confirms)
    repeats = [(trial.attributes.confirms, trial) for trial in trials if trial.attributes.excused is None]
    return [(repeat, trial) for repeat, trial in repeats if repeat is not None]
