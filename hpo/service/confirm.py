"""Confirmation: the best configurations and the baseline, trained again on fresh seeds and rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from hpo.config import metric_label
from hpo.errors import StudyError, UsageError
from hpo.results import confirmation
from hpo.results.candidates import Candidate, Confirmation
from hpo.results.intervals import LEVEL, Interval
from hpo.service.create import fetch_study_data
from hpo.service.data import OnDownload, ignore_download
from hpo.service.search import Observer, RunOutcome, StopRequest, run_workers
from hpo.store.database.connect import Store
from hpo.store.studies import StudyRecord

__all__ = [
    "LEVEL",
    "Candidate",
    "Confirmation",
    "ConfirmationRun",
    "Interval",
    "check_counts",
    "confirm_study",
    "metric_label",
    "prepare_confirmation",
    "read_confirmation",
    "run_confirmation",
]


@dataclass(frozen=True)
class ConfirmationRun:
    """A run of workers that confirmed a study, and what the trainings have shown."""

    study: str
    """Name of the linked study that holds the trainings."""
    outcome: RunOutcome
    result: Confirmation | None
    """None if no configuration has been trained again twice."""

    def raise_for_failure(self) -> None:
        """Raise: StudyError if the run failed, or if it ended, without being stopped, with nothing to compare."""
        self.outcome.raise_for_failure()
        if self.result is None and not self.outcome.stopped:
            raise StudyError(
                f'Study "{self.study}" has no two trainings of one configuration: see why with '
                f"`hpo studies show {self.study}`."
            )


def prepare_confirmation(
    store: Store,
    study: StudyRecord,
    *,
    top: int = 5,
    seeds: int = 5,
    same_cut: bool = False,
    on_download: OnDownload = ignore_download,
) -> StudyRecord:
    """Make or extend the linked study that confirms another: `top` best configurations and the baseline, `seeds` times.

    Each time other rows are validated on, or with `same_cut` always the study's own. Trainings that exist already stay
    and count. Raises: UsageError for numbers out of range, or for code that may not
    run; StudyError if there is nothing to confirm; DataError if the data cannot be fetched.
    """
    check_counts(top, seeds)
    study.space.check_code()
    fetch_study_data(study, on_download=on_download)
    return confirmation.prepare(store, study, top, seeds, same_cut=same_cut)


def run_confirmation(
    store: Store,
    study: StudyRecord,
    *,
    devices: Sequence[str],
    engine: str | None = None,
    observer: Observer | None = None,
    stop: StopRequest | None = None,
) -> ConfirmationRun:
    """Run the trainings of a study's confirmation that are still to be run, and compare what they have shown.

    Raises: StudyError if no confirmation was prepared, UsageError for an unknown engine.
    """
    confirming = confirmation.find(store, study)
    if confirming is None:
        raise StudyError(f'Study "{study.name}" has no confirmation. Make one: hpo confirm {study.name}')
    outcome = run_workers(store, confirming, devices=devices, engine=engine, observer=observer, stop=stop)
    return ConfirmationRun(confirming.name, outcome, confirmation.evaluate(store, study))


def confirm_study(
    store: Store,
    study: StudyRecord,
    *,
    devices: Sequence[str],
    top: int = 5,
    seeds: int = 5,
    same_cut: bool = False,
    engine: str | None = None,
    observer: Observer | None = None,
    stop: StopRequest | None = None,
    on_download: OnDownload = ignore_download,
) -> ConfirmationRun:
    """Train the `top` best configurations and the baseline again, on `seeds` fresh seeds and cuts, and compare them.

    Raises: what `prepare_confirmation` and `run_confirmation` raise.
    """
    prepare_confirmation(store, study, top=top, seeds=seeds, same_cut=same_cut, on_download=on_download)
    return run_confirmation(store, study, devices=devices, engine=engine, observer=observer, stop=stop)


def check_counts(top: int, seeds: int) -> None:
    """Refuse numbers of configurations and seeds that cannot be compared. Raises: UsageError."""
    if top < 1:
        raise UsageError(f"top: must be at least 1, got {top}.")
    if seeds < 2:
        raise UsageError(f"seeds: must be at least 2, for one score says nothing of their spread, got {seeds}.")


def read_confirmation(store: Store, study: StudyRecord) -> Confirmation | None:
    """Return what a study's confirmation has shown so far; None without two trainings of one configuration."""
    return confirmation.evaluate(store, study)
