"""A study as its pruner sees it.

With two objectives: Optuna does not prune, because a learning curve does not show the second one. Here the second, the
cost, is known before training. A trial is pruned when the recipe's pruner decides so among the trials of no larger
cost: it is then likely to be dominated. A small network is never pruned because a larger one is better.

With `compare = "projection"`: trials are compared by the value that their schedule would give them at the end of
training (`hpo.strategy.growth`), not by the value of the moment. As long as few trainings with its schedule are
complete, nothing tells that value; then a trial is compared only with those of the same schedule.
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
from hpo.strategy.growth import Growth, LearnedGrowth, curve_of, schedule_of
from hpo.strategy.study_cache import StudyCache

_RUNG = "completed_rung_"
"""Begin of the attributes in which Optuna's successive halving keeps a trial's value at each of its rungs."""


class PrunerView(CachedStorage):
    """One objective, only the trials that cost no more than a limit, and values as the recipe compares them."""

    def __init__(self, cache: StudyCache, epochs: int, compare: Compare = "value", best: float = 1.0) -> None:
        """`epochs` are those of the space, `best` is the metric's best possible value."""
        super().__init__(cache)
        self._epochs, self._best, self._compare = epochs, best, compare
        self._cost_limit = math.inf
        self._only_schedule: str | None = None
        self._learned = LearnedGrowth(epochs, best)
        self._growth = Growth(())
        self._shown: dict[int, tuple[FrozenTrial, FrozenTrial]] = {}
        """By id: a finished trial of the cache, and what is shown of it."""

    @override
    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [StudyDirection.MAXIMIZE]

    @override
    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = [self.shown(trial) for trial in self.cache.judged_trials(states) if self._is_rival(trial)]
        return copy.deepcopy(trials) if deepcopy else trials

    @override
    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_system_attr(trial_id, key, value)
        if self._compare == "projection" and key.startswith(_RUNG):
            trial = self.cache.trial(trial_id)
            compared = (TrialAttributes.of(trial).compared or {}) | {str(trial.last_step): value}
            self.cache.note(trial_id, TrialAttributes.compared.entry(compared))

    def begin_decision(self, trial: FrozenTrial) -> None:
        """Take note of the trial that is to be judged, and learn the growth of curves from those that have ended."""
        cost = TrialAttributes.of(trial).cost
        self._cost_limit = math.inf if cost is None else cost
        if self._compare == "value":
            return
        growth = self._learned.of(self.cache.visible_trials((TrialState.COMPLETE, TrialState.PRUNED)))
        if growth is not self._growth:
            self._growth, self._shown = growth, {}
        schedule = schedule_of(trial)
        self._only_schedule = None if self._growth.is_known(schedule) else schedule

    def _is_rival(self, trial: FrozenTrial) -> bool:
        """Say whether the trial that is to be judged is compared with this one."""
        cost = trial.system_attrs.get(TrialAttributes.cost.key, math.inf)
        return cost <= self._cost_limit and (self._only_schedule is None or self._only_schedule == schedule_of(trial))

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
            epoch: self._growth.projected(curve, i) for i, epoch in enumerate(sorted(reports), start=1)
        }
        # What was compared at a rung is compared with what is known of the growth by now.
        rungs = (int(epoch) for epoch in TrialAttributes.of(trial).compared or {})
        at_rungs = {f"{_RUNG}{i}": shown.intermediate_values[e] for i, e in enumerate(sorted(rungs)) if e in reports}
        shown.system_attrs = trial.system_attrs | at_rungs
        return shown
