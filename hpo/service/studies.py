"""Studies looked at: lists, leaderboards, single trials. Nothing is changed."""

from collections.abc import Mapping
from dataclasses import dataclass

from hpo.config import format_difference
from hpo.errors import StudyError
from hpo.store import queries, studies
from hpo.store.database.connect import Store
from hpo.store.database.study_rows import load_attributes
from hpo.store.views import StudyView, TrialView

__all__ = [
    "Leaderboard",
    "StudySummary",
    "StudyView",
    "TrialDetails",
    "TrialView",
    "configuration",
    "format_difference",
    "leaderboard",
    "list_studies",
    "show_study",
    "show_trial",
]

OUTSIDE_ROWS = 3
"""So many of the best trials that the study's space, changed since, cannot draw."""


@dataclass(frozen=True)
class Leaderboard:
    """The best trials of a study."""

    metric: str
    """What the values are of, as "validation accuracy"."""
    cost: str | None
    """What the second objective is, as "parameters"; None with one objective."""
    best: tuple[TrialView, ...]
    """The best trials, the best first; with two objectives the Pareto front: each next one is worse, but costs less."""
    front_size: int | None
    """Trials of the whole Pareto front; None with one objective."""
    baseline: TrialView | None
    """The best finished baseline."""
    outside: tuple[TrialView, ...]
    """The best trials that the study's space, changed since, cannot draw."""


@dataclass(frozen=True)
class StudySummary:
    """A study: progress, faults, the best trials."""

    view: StudyView
    failures: Mapping[str, int]
    """Trials by the kind of their fault."""
    best_so_far: tuple[float, ...]
    """The best value after each finished trial, in the order they finished."""
    best: tuple[TrialView, ...]
    """The best complete trials by the metric."""
    front: tuple[TrialView, ...]
    """The Pareto front; empty with one objective."""
    leaderboard: Leaderboard
    device_hours: float
    """Hours of training of all trials that have ended, each by itself: in a lane, its part of the lane's time."""


@dataclass(frozen=True)
class TrialDetails:
    """One trial, and what its values are of."""

    trial: TrialView
    metric: str


def list_studies(store: Store) -> tuple[StudyView, ...]:
    """Return all studies of a store, in the order they were made."""
    with store.read() as connection:
        return tuple(queries.studies(connection))


def leaderboard(store: Store, study_id: int, *, top: int = 10) -> Leaderboard:
    """Return the `top` best trials of a study, its best baseline, and what lies outside its space."""
    with store.read() as connection:
        study = load_attributes(connection, study_id)
        cost = study.cost_label
        if cost is None:
            best, front_size = queries.best_trials(connection, study_id, top), None
        else:
            front = queries.front(connection, study_id)
            best, front_size = front[:top], len(front)
        return Leaderboard(
            metric=study.metric_label,
            cost=cost,
            best=tuple(best),
            front_size=front_size,
            baseline=queries.baseline_trial(connection, study_id),
            outside=tuple(queries.best_trials(connection, study_id, min(top, OUTSIDE_ROWS), outside=True)),
        )


def show_study(store: Store, name: str, *, top: int = 10) -> StudySummary:
    """Return a study with its `top` best trials. Raises: StudyError if there is none of this name."""
    with store.read() as connection:
        study_id = studies.id_of(connection, store, name)
        view = queries.study(connection, study_id)
        failures = queries.failure_kinds(connection, study_id)
        history = queries.best_so_far(connection, study_id)
        front = queries.front(connection, study_id)
        of_front = queries.best_trials(connection, study_id, top) if front else ()
        hours = queries.training_seconds(connection, study_id) / 3600
    board = leaderboard(store, study_id, top=top)
    best = tuple(of_front) if front else board.best
    return StudySummary(view, failures, tuple(history), best, tuple(front), board, hours)


def show_trial(store: Store, name: str, number: int) -> TrialDetails:
    """Return a trial of a study by its number. Raises: StudyError if there is no such study or trial."""
    with store.read() as connection:
        study_id = studies.id_of(connection, store, name)
        trial_id = queries.trial_id_of(connection, study_id, number)
        if trial_id is None:
            raise StudyError(f'Study "{name}" has no trial {number}. `hpo studies show {name}` lists the best.')
        return TrialDetails(queries.trial(connection, trial_id), load_attributes(connection, study_id).metric_label)


def configuration(trial: TrialView) -> str:
    """Return a trial's configuration in one line; its parameters, for a trial that was not made by hpo."""
    if trial.attributes.config is None:
        return ", ".join(f"{name}={value}" for name, value in trial.params.items())
    return trial.config.summary()
