"""Warm starts: what was best in earlier studies is tried first."""

from collections.abc import Iterable
from dataclasses import dataclass

from hpo.results import warm_start
from hpo.store.database.connect import Store
from hpo.store.studies import StudyRecord


@dataclass(frozen=True)
class WarmTrial:
    """One of the best configurations of an earlier study, as another study takes it."""

    study: str
    """The earlier study's name."""
    trial: int
    """The trial's number there."""
    summary: str
    """The configuration in one line."""
    reason: str
    """Why the other study's space cannot draw it; empty if it can: then it is tried first."""


def enqueue_best(store: Store, study: StudyRecord, sources: Iterable[str]) -> tuple[WarmTrial, ...]:
    """Have a study try first what was best in earlier studies of its store, where it fits and was not tried before.

    Raises: StudyError for a study that is missing.
    """
    return tuple(
        WarmTrial(source, number, summary, reason)
        for source in sources
        for number, summary, reason in warm_start.warm_start(store, study, source)
    )
