"""Which pruned trials deserve a second chance: those that promise most, by how the study's curves have grown."""

from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

from hpo.store.database.trial_rows import root_of
from hpo.store.record import TrialAttributes
from hpo.strategy.growth import LearnedGrowth, curve_of
from hpo.strategy.study_cache import StudyCache, revived_by


class SecondChances:
    """The pruned trials of a study by what they promise.

    A trial promises the value at the end of training to which its curve would have grown. It may win if that is more
    than the best value of the complete trials, with two objectives of those that cost no more than it.
    """

    def __init__(self, cache: StudyCache, epochs: int, best: float = 1.0) -> None:
        """`epochs` are those of the space, `best` is the metric's best possible value."""
        self._cache, self._epochs = cache, epochs
        self._learned = LearnedGrowth(epochs, best)
        self._kept: set[int] = set()
        """Roots of the trials that promised most when this was last asked."""

    def ranked(self) -> list[FrozenTrial]:
        """Return the pruned trials that had no second chance, the one that promises most first."""
        complete = self._cache.visible_trials((TrialState.COMPLETE,))
        growth = self._learned.of(self._cache.visible_trials((TrialState.COMPLETE, TrialState.PRUNED)))
        ranked = []
        for trial in self._candidates():
            curve = curve_of(trial, self._epochs)
            if curve is not None:
                promise = growth.projected(curve)
                ranked.append((promise - _to_beat(trial, complete), promise, -trial.number, trial))
        return [trial for *_, trial in sorted(ranked, key=lambda each: each[:3], reverse=True)]

    def roots(self, count: int) -> tuple[list[int], list[int]]:
        """Return the roots of the trials that promise most, and of those that did when this was last asked."""
        kept = [root_of(trial) for trial in self.ranked()[:count]] if count else []
        displaced = self._kept - set(kept)
        self._kept = set(kept)
        return kept, sorted(displaced)

    def _candidates(self) -> Iterable[FrozenTrial]:
        trials = self._cache.all_trials()
        # One that was voided or that failed for good leaves its place to the next, not to the same trial.
        revived = {revived_by(t) for t in trials if not TrialAttributes.of(t).is_void}
        return (t for t in trials if t.state == TrialState.PRUNED and t.number not in revived and revived_by(t) is None)


def _to_beat(trial: FrozenTrial, complete: list[FrozenTrial]) -> float:
    """Return the best value of the complete trials that cost no more, or the worst value where all cost more."""
    cost = TrialAttributes.of(trial).cost
    rivals = [t.values[0] for t in complete if cost is None or t.values[1] <= cost]
    return max(rivals) if rivals else min((t.values[0] for t in complete), default=0.0)
