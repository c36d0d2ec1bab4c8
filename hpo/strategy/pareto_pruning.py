"""Pruning in a study with two objectives: a trial is compared only with those that cost no more.

Optuna does not prune with two objectives, because a learning curve does not show the second one. Here the second, the
cost, is known before training. A trial is pruned when the recipe's pruner decides so among the trials of no larger
cost: it is then likely to be dominated. A small network is never pruned because a larger one is better.
"""

import math
from collections.abc import Container

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from hpo.store.record import TrialAttributes
from hpo.strategy.cached_storage import CachedStorage
from hpo.strategy.study_cache import StudyCache


class ParetoStorage(CachedStorage):
    """A study as a pruner sees it: one objective, and only the trials that cost no more than a limit."""

    def __init__(self, cache: StudyCache) -> None:
        super().__init__(cache)
        self.cost_limit = math.inf

    @override
    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [StudyDirection.MAXIMIZE]

    @override
    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        key, trials = TrialAttributes.cost.key, super().get_all_trials(study_id, deepcopy, states)
        return [trial for trial in trials if trial.system_attrs.get(key, math.inf) <= self.cost_limit]
