"""A study as its pruner sees it.

With two objectives: Optuna does not prune, because a learning curve does not show the second one. Here the second, the
cost, is known before training. A trial is pruned when the recipe's pruner decides so among the trials of no larger
cost: it is then likely to be dominated. A small network is never pruned because a larger one is better.

With `compare = "projection"`: trials are compared by the value that their schedule would give them at the end of
training (`hpo.strategy.growth`), not by the value of the moment.
"""

import copy
import math
from collections.abc import Container
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from hpo.optuna_compat import trial_id as id_of
from hpo.recipe import Compare
from hpo.store.record import TrialAttributes
from hpo.strategy.cached_storage import CachedStorage
from hpo.strategy.growth import Growth, curve_of
from hpo.strategy.study_cache import StudyCache

EXACT = 100
"""Up to so many finished trials the growth is learned anew with every one that ends, then with every hundredth part."""
_RUNG = "completed_rung_"
"""Begin of the attributes in which Optuna's successive halving keeps a trial's value at each of its rungs."""


class PrunerView(CachedStorage):
    """One objective, only the trials that cost no more than a limit, and values as the recipe compares them."""

    def __init__(self, cache: StudyCache, epochs: int, compare: Compare = "value") -> None:
        """`epochs` are those of the space."""
        super().__init__(cache)
        self._epochs = epochs
        self.cost_limit = math.inf
        self._compare = compare
        self._growth, self._learned_from = Growth(()), -1
        self._shown: dict[int, tuple[FrozenTrial, FrozenTrial]] = {}
        """By id: a finished trial of the cache, and what is shown of it."""

    @override
    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [StudyDirection.MAXIMIZE]

    @override
    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        key = TrialAttributes.cost.key
        affordable = [
            t for t in self.cache.visible_trials(states) if t.system_attrs.get(key, math.inf) <= self.cost_limit
        ]
        trials = [self.shown(trial) for trial in affordable]
        return copy.deepcopy(trials) if deepcopy else trials

    @override
    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_system_attr(trial_id, key, value)
        if self._compare == "projection" and key.startswith(_RUNG):
            trial = self.cache.trial(trial_id)
            compared = (TrialAttributes.of(trial).compared or {}) | {str(trial.last_step): value}
            self.cache.note(trial_id, TrialAttributes.compared.entry(compared))

    def learn(self) -> None:
        """Learn the growth of the curves anew, if trials have ended since the last time."""
        if self._compare == "value":
            return
        finished = self.cache.visible_trials((TrialState.COMPLETE, TrialState.PRUNED))
        if abs(len(finished) - self._learned_from) > len(finished) // EXACT // 2:
            self._growth, self._learned_from, self._shown = Growth.of(finished, self._epochs), len(finished), {}

    def shown(self, trial: FrozenTrial) -> FrozenTrial:
        """Return a trial as the pruner sees it."""
        if self._compare == "value":
            return trial
        before, shown = self._shown.get(id_of(trial), (None, None))
        if shown is None or before is not trial:
            shown = self._projected(trial)
            self._shown[id_of(trial)] = (trial, shown)
        return shown

    def _projected(self, trial: FrozenTrial) -> FrozenTrial:
        curve = curve_of(trial, self._epochs)
        if curve is None:
            return trial
        shown = copy.copy(trial)
        reports = trial.intermediate_values
        shown.intermediate_values = {
            epoch: value + self._growth.gain(curve.schedule, curve.phase(epoch)) for epoch, value in reports.items()
        }
        # What was compared at a rung is compared with what is known of the growth by now.
        rungs = (int(epoch) for epoch in TrialAttributes.of(trial).compared or {})
        at_rungs = {f"{_RUNG}{i}": shown.intermediate_values[e] for i, e in enumerate(sorted(rungs)) if e in reports}
        shown.system_attrs = trial.system_attrs | at_rungs
        return shown
