"""Warm starts: the best configurations of earlier studies, also over other data, are tried first."""

from hpo.config import TrialConfig
from hpo.results.confirmation import distinct
from hpo.store import queries, studies
from hpo.store.database.connect import Store
from hpo.store.studies import StudyRecord
from hpo.transfer import draws_for

TOP = 5
"""Configurations taken from each earlier study."""
WARM = "warm_from"
"""User attribute of a trial with another study's configuration: that study's name and uid, and the trial's number."""


def warm_start(store: Store, study: StudyRecord, name: str) -> list[tuple[int, str, str]]:
    """Enqueue another study's best configurations that fit and were not enqueued before.

    Returns for each the trial's number there, its config in a line, and why it does not fit (empty if it does).
    Raises: StudyError if there is no such study.
    """
    source = studies.load_study(store, name)
    with store.read() as connection:
        best = distinct(queries.best_trials(connection, source.study_id, 20 * TOP))[:TOP]
        enqueued = {
            (trial.attrs[WARM]["uid"], trial.attrs[WARM]["trial"])
            for trial in queries.trials_with(connection, study.study_id, WARM)
        }
    transfers, waiting = [], []
    for trial in best:
        config = TrialConfig.from_dict(trial.attrs["config"], f"trial {trial.number}: config")
        reason = ""
        try:
            draws = draws_for(study.effective_space, config)
            if (source.uid, trial.number) in enqueued:
                continue
            waiting.append((draws, {WARM: {"study": name, "uid": source.uid, "trial": trial.number}}))
        except ValueError as error:
            reason = str(error).removesuffix(".")
        transfers.append((trial.number, config.summary(), reason))
    studies.enqueue(store, study, waiting)
    return transfers
