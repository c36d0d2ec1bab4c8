"""Audit: pruned trials, chosen at random, are trained to the end: did pruning miss anything?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpo.config import metric_label
from hpo.errors import StudyError, UsageError
from hpo.results import audit, linked_study
from hpo.results.audit import Audit, Audited
from hpo.results.pruner_comparison import PrunerComparison, compare_pruners
from hpo.service.create import fetch_study_data
from hpo.service.data import OnDownload, ignore_download
from hpo.service.search import Observer, RunOutcome, StopRequest, run_workers
from hpo.store.database.connect import Store
from hpo.store.studies import StudyRecord

__all__ = [
    "Audit",
    "AuditRun",
    "Audited",
    "PrunerComparison",
    "begin_audit",
    "check_count",
    "metric_label",
    "prepare_audit",
    "read_audit",
    "run_audit",
]


@dataclass(frozen=True)
class AuditRun:
    """A run of workers that audited a study, and what the trainings have shown."""

    study: str
    """Name of the linked study that holds the trainings."""
    outcome: RunOutcome
    result: Audit | None
    """None if no pruned trial has been trained to the end yet."""

    def raise_for_failure(self) -> None:
        """Raise: StudyError if the run failed, or if it ended, without being stopped, with nothing to show."""
        self.outcome.raise_for_failure()
        if self.result is None and not self.outcome.stopped:
            raise StudyError(
                f'Study "{self.study}" has no training that ended: see why with `hpo studies show {self.study}`.'
            )


def prepare_audit(
    store: Store, study: StudyRecord, *, trials: int = 6, on_download: OnDownload = ignore_download
) -> StudyRecord:
    """Make or extend the linked study that trains `trials` pruned trials of another to the end, drawn at random.

    Trainings that exist already stay and count. Raises: UsageError for a number out of range, or for code that may not
    run; StudyError if nothing was pruned or no trial is complete; DataError if the data cannot be fetched.
    """
    check_count(trials)
    study.space.check_code()
    fetch_study_data(study, on_download=on_download)
    return audit.prepare(store, study, trials)


def run_audit(
    store: Store,
    study: StudyRecord,
    *,
    devices: Sequence[str],
    engine: str | None = None,
    observer: Observer | None = None,
    stop: StopRequest | None = None,
) -> AuditRun:
    """Run the trainings of a study's audit that are still to be run, and return what all have shown.

    Raises: StudyError if no audit was prepared, UsageError for an unknown engine.
    """
    auditing = linked_study.find(store, study, linked_study.AUDIT)
    if auditing is None:
        raise StudyError(f'Study "{study.name}" has no audit. Make one: hpo audit {study.name}')
    outcome = run_workers(store, auditing, devices=devices, engine=engine, observer=observer, stop=stop)
    return AuditRun(auditing.name, outcome, read_audit(store, study))


def check_count(trials: int) -> None:
    """Refuse a number of trials that is none. Raises: UsageError."""
    if trials < 0:
        raise UsageError(f"trials: must be at least 0, got {trials}.")


def read_audit(store: Store, study: StudyRecord) -> Audit | None:
    """Return what a study's audit has shown so far; None if no pruned trial was trained to the end."""
    result = audit.evaluate(store, study)
    return None if result is None else _with_pruners(store, study, result)


def begin_audit(store: Store, study: StudyRecord) -> Audit:
    """Return what a study's kept curves and its audit so far show, without training anything.

    Raises: StudyError if nothing was pruned or no trial is complete.
    """
    return _with_pruners(store, study, audit.begin(store, study))


def _with_pruners(store: Store, study: StudyRecord, result: Audit) -> Audit:
    return replace(result, pruners=compare_pruners(store, study))
