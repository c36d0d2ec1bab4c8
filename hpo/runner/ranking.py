"""The best trials of a study, as a worker knows them from its cache."""

import heapq

from optuna.trial import FrozenTrial, TrialState

from hpo.store.database.trial_rows import root_of
from hpo.strategy.study_cache import StudyCache


class Ranking:
    """The complete and unfinished trials of a study. A root is the number under which a trial first began."""

    def __init__(self, cache: StudyCache) -> None:
        self._cache = cache

    def best_value(self) -> float | None:
        """Return the best value of the complete trials; None before there is any."""
        return max((trial.values[0] for trial in self._complete()), default=None)

    def best_roots(self, count: int) -> tuple[list[int], list[int]]:
        """Return the roots of the best complete trials, best first, and of the one that comes after them."""
        ranked = heapq.nsmallest(count + 1, self._complete(), key=lambda t: (-t.values[0], t.number))
        roots = [root_of(trial) for trial in ranked]
        return roots[:count], roots[count:]

    def unfinished_roots(self) -> set[int]:
        """Return the roots of the trials that are running or wait to be resumed."""
        return {root_of(t) for t in self._cache.all_trials() if not t.state.is_finished()}

    def _complete(self) -> list[FrozenTrial]:
        return self._cache.visible_trials((TrialState.COMPLETE,))
