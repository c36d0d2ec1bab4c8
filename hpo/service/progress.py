"""How far a study has come, read from its store at one moment: what a live view shows."""

from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from hpo.errors import StoreUnavailableError
from hpo.store import queries
from hpo.store.database.connect import Store
from hpo.store.database.outages import reason
from hpo.store.database.url import shown
from hpo.store.record import State
from hpo.store.studies import StudyRecord
from hpo.store.views import StudyView, TrialView

__all__ = ["State", "StudyProgressView", "StudyView", "TrialView", "read_progress"]


@dataclass(frozen=True)
class StudyProgressView:
    """A study and the trials that matter now, all workers' together."""

    study: StudyView
    best: TrialView | None
    """The best complete trial by the metric."""
    baseline: TrialView | None
    """The best finished baseline."""
    front: tuple[TrialView, ...]
    """With two objectives: the Pareto front, the best by the metric first. Empty with one objective."""
    running: tuple[TrialView, ...]
    """Trials in training, by number."""
    ended: tuple[TrialView, ...]
    """Trials that ended last, the latest first."""


def read_progress(store: Store, study: StudyRecord, *, ended: int = 5) -> StudyProgressView:
    """Read how far a study has come; at most `ended` of the trials that have ended are in it.

    Raises: StoreUnavailableError if the store does not answer now, StoreError if it is damaged.
    """
    study_id = study.study_id
    try:
        with store.read() as connection:
            best = queries.best_trials(connection, study_id, 1)
            return StudyProgressView(
                study=queries.study(connection, study_id),
                best=best[0] if best else None,
                baseline=queries.baseline_trial(connection, study_id),
                front=tuple(queries.front(connection, study_id)),
                running=tuple(queries.running_trials(connection, study_id)),
                ended=tuple(queries.last_ended(connection, study_id, ended)),
            )
    except SQLAlchemyError as error:
        raise StoreUnavailableError(f"{shown(store.url)}: does not answer: {reason(error)}. Try again.") from error
