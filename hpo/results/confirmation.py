"""Is the winner better, or was it lucky? The best configurations and the baseline, trained again on fresh seeds.

A search returns the luckiest of many noisy scores. Here its best configurations are trained again, each on seeds
that played no part in choosing it, as trials of a linked study `NAME-confirm`: the same workers, the same faults
survived. The winner is the one with the highest lower confidence bound of its mean.
"""

import json
import statistics
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from hpo import data
from hpo.config import WORST, TrialConfig
from hpo.constraints import Constraints
from hpo.errors import StudyError
from hpo.recipe import Budget, Fidelity, Pruner, Sampler
from hpo.results.intervals import Interval, anova_differs, dunnett_intervals, mean_interval, prediction_interval
from hpo.search.samplers import derived_seed
from hpo.store import queries, studies
from hpo.store.database import schema, trial_rows
from hpo.store.database.connect import Store
from hpo.store.leases import stopping
from hpo.store.leases.stopping import CONFIRMS
from hpo.store.queries import TrialView
from hpo.store.studies import StudyRecord

SUFFIX = "-confirm"


@dataclass(frozen=True)
class Candidate:
    """A configuration that was trained again, and what that showed. Values are of the study's metric."""

    number: int
    """Of the trial in the study that was searched."""
    config: TrialConfig
    baseline: str | None
    """The baseline's name, if it is one."""
    searched: float
    values: tuple[float, ...]
    """On fresh seeds, in the seeds' order."""
    interval: Interval
    """Of the mean."""
    gap: Interval | None
    """How far its mean lies above the baseline's; None for the baseline, and without one."""
    promise: Interval | None
    """Where the test accuracy of one more training should land; None where another metric was searched."""

    @property
    def mean(self) -> float:
        """Mean over the fresh seeds."""
        return statistics.fmean(self.values)

    @property
    def luck(self) -> float:
        """How much of the searched value the fresh seeds did not repeat."""
        return self.searched - self.mean


@dataclass(frozen=True)
class Confirmation:
    """The candidates, the one with the highest lower bound first."""

    study: str
    """Where the trainings are."""
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

    With two objectives, the best are those of the Pareto front, from the best by the metric down.

    What is there already stays and counts. Raises: StudyError if there is nothing to confirm, or if another study
    has the name.
    """
    name = study.name + SUFFIX
    with store.read() as connection:
        if CONFIRMS in studies.user_attrs(connection, study.study_id):
            raise StudyError(f'Study "{study.name}" is itself a confirmation. Confirm the study that it belongs to.')
        best = queries.front(connection, study.study_id) or queries.best_trials(connection, study.study_id, 20 * top)
        chosen = distinct(best)[:top]
        baseline = queries.baseline_trial(connection, study.study_id)
        there = name in studies.names(connection)
    if not chosen:
        raise StudyError(f'Study "{study.name}" has no complete trial yet. Go on with it: hpo run --study {study.name}')
    if baseline is not None:
        chosen = distinct([*chosen, baseline])
    if not there:
        recipe = study.recipe.model_copy(
            update={
                "title": f"Fresh seeds for the best of {study.name}",
                "objective": study.metric,
                "sampler": Sampler(name="random"),
                "pruner": Pruner(name="none"),
                "fidelity": Fidelity(),
                "budget": Budget(trials=len(chosen) * seeds, only_waiting=True),
            }
        )
        space = study.space.model_copy(update={"baselines": [], "constraints": Constraints()})
        studies.create(store, name, study.space_name, space, recipe, study.fingerprint, {CONFIRMS: study.uid})
    confirming = studies.load_study(store, name)
    with store.write() as connection:
        store.lock_study(connection, confirming.study_id)
        if studies.user_attrs(connection, confirming.study_id).get(CONFIRMS) != study.uid:
            raise StudyError(f'There is another study "{name}". Rename it: hpo studies rename {name} NEW_NAME')
        listed = {(c["trial"], c["repeat"]) for c, _ in _trainings(store, confirming)}
        sources = trial_rows.load_some(connection, [trial.trial_id for trial in chosen])
        for repeat in range(seeds):  # all configurations once, then all once more: half of it says something
            for source in sources:
                if (source.number, repeat) not in listed:
                    seed = derived_seed(study.recipe.seed, f"confirm/{source.number}", repeat)
                    config = TrialConfig.from_dict(source.user_attrs["config"], f"trial {source.number}")
                    noted = {
                        "config": study.full(config).with_seed(seed).to_dict(),
                        CONFIRMS: {"trial": source.number, "repeat": repeat},
                    }
                    trial_rows.add_waiting(store, connection, confirming.study_id, source, noted, {})
        columns = schema.trials.c
        total = stopping.count(
            connection,
            sa.and_(columns.study_id == confirming.study_id, columns.state.in_(schema.FINISHED + schema.UNFINISHED)),
        )
    studies.update_budget(store, confirming, trials=total)
    return studies.load_study(store, name)


def distinct(found: list[TrialView]) -> list[TrialView]:
    """Return trials without those that differ from an earlier one in nothing but their seed."""
    kept: dict[str, TrialView] = {}
    for trial in found:
        config = dict(trial.attrs["config"]) | {"seed": 0}
        kept.setdefault(json.dumps(config, sort_keys=True), trial)
    return list(kept.values())


def find(store: Store, study: StudyRecord) -> StudyRecord | None:
    """Return the study that confirms another, if there is one."""
    table = schema.study_user_attributes
    query = (
        sa.select(schema.studies.c.study_name)
        .join_from(table, schema.studies, table.c.study_id == schema.studies.c.study_id)
        .where(table.c.key == CONFIRMS, table.c.value_json == json.dumps(study.uid))
    )
    with store.read() as connection:
        name = connection.execute(query).scalar()
    return None if name is None else studies.load_study(store, name)


def evaluate(store: Store, study: StudyRecord) -> Confirmation | None:
    """Return what a study's confirmation has shown; None if no configuration was trained on two fresh seeds."""
    confirming = find(store, study)
    if confirming is None:
        return None
    values: dict[int, dict[int, float]] = {}
    worst = WORST[study.metric]  # what a training that diverged counts: a configuration that may diverge is no winner
    trainings = _trainings(store, confirming)
    for what, trial in trainings:
        if trial.state in schema.FINISHED:
            value = trial.value if trial.state == "COMPLETE" and trial.value is not None else worst
            values.setdefault(what["trial"], {})[what["repeat"]] = value
    samples = {number: tuple(v for _, v in sorted(found.items())) for number, found in values.items() if len(found) > 1}
    if not samples:
        return None
    with store.read() as connection:
        ids = {number: queries.trial_id_of(connection, study.study_id, number) for number in samples}
        sources = {number: queries.trial(connection, key) for number, key in ids.items() if key is not None}
    candidates = _candidates(study, sources, samples)
    candidates.sort(key=lambda c: (-c.interval.low, c.number))
    verdict, certain = _verdict(candidates)
    missing = len({(w["trial"], w["repeat"]) for w, _ in trainings}) - sum(map(len, values.values()))
    return Confirmation(confirming.name, tuple(candidates), verdict, certain, missing)


def _candidates(
    study: StudyRecord, sources: dict[int, TrialView], samples: dict[int, tuple[float, ...]]
) -> list[Candidate]:
    control = next((n for n, trial in sources.items() if "baseline" in trial.attrs), None)
    others = [n for n in sources if n != control]
    found: dict[int, Interval] = {}
    if control is not None and others:
        found = dict(zip(others, dunnett_intervals([samples[n] for n in others], samples[control]), strict=True))
    candidates = []
    for number, trial in sources.items():
        config = study.full(TrialConfig.from_dict(trial.attrs["config"], f"trial {number}: config"))
        info = data.info(config.data)
        candidates.append(
            Candidate(
                number=number,
                config=config,
                baseline=trial.attrs.get("baseline"),
                searched=trial.value if trial.value is not None else WORST[config.metric],
                values=samples[number],
                interval=mean_interval(samples[number]),
                gap=found.get(number),
                promise=prediction_interval(samples[number], config.split.rows_of(info.rows[0]), info.rows[1])
                if config.metric == "accuracy"
                else None,
            )
        )
    return candidates


def _verdict(ranked: list[Candidate]) -> tuple[str, bool]:
    """Return what the fresh seeds say of the winner, and whether it is better than the baseline beyond chance."""
    winner = ranked[0]
    if winner.baseline is not None:
        return "the baseline itself has the highest lower bound: the search found nothing better", False
    if winner.gap is None:
        if len(ranked) > 1 and anova_differs([c.values for c in ranked]):
            return "the best of those tried again; there is no baseline to compare it with", False
        return "not distinguishable from the others, and there is no baseline to compare with: no winner", False
    middle = (winner.gap.low + winner.gap.high) / 2
    size = f"{abs(middle):.4f} ± {winner.gap.half:.4f}"
    if winner.gap.low > 0:
        return f"better than the baseline by {size}", True
    return f"not distinguishable from the baseline (the gap is {'-' if middle < 0 else ''}{size}): no winner", False


def _trainings(store: Store, confirming: StudyRecord) -> list[tuple[dict[str, Any], TrialView]]:
    """Return the trainings of a confirmation: which trial's, which repeat, and the trial that ran it.

    Without those that went on, or were tried again, under another number.
    """
    with store.read() as connection:
        found = queries.trials_with(connection, confirming.study_id, CONFIRMS)
    return [(trial.attrs[CONFIRMS], trial) for trial in found if stopping.EXCUSED not in trial.attrs]
