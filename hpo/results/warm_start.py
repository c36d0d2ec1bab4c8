"""Warm starts: the best configurations of earlier studies, also over other data, are tried first."""

from hpo.results.confirmation import distinct
from hpo.store import queries, studies
from hpo.store.database.connect import Store
from hpo.store.record import TrialAttributes, WarmSource
from hpo.store.studies import StudyRecord
from hpo.transfer import draws_for

TOP = 5
"""Configurations taken from each earlier study."""


def warm_start(store: Store, study: StudyRecord, name: str) -> list[tuple[int, str, str]]:
    """Enqueue another study's best configurations that fit and were not enqueued before.

    Returns for each the trial's number there, its config in a line, and why it does not fit (empty if it does).
    Raises: StudyError if there is no such study.
    """
    source = studies.load_study(store, name)
    with store.read() as connection:
        best = distinct(queries.best_trials(connection, source.study_id, 20 * TOP))[:TOP]
        warm_starts = queries.trials_with(connection, study.study_id, TrialAttributes.warm_from)
    sources = [trial.attributes.warm_from for trial in warm_starts]
    enqueued = {(each.uid, each.trial) for each in sources if each is not None}
    transfers, waiting = [], []
    for trial in best:
        config, reason = trial.config, ""
        try:
            draws = draws_for(study.effective_space, config)
            if (source.uid, trial.number) in enqueued:
                continue
            waiting.append((draws, TrialAttributes.warm_from.entry(WarmSource(name, source.uid, trial.number))))
        except ValueError as error:
            reason = str(error).removesuffix(".")
        transfers.append((trial.number, config.summary(), reason))
    studies.enqueue(store, study, waiting)
    return transfers
