"""Pruning where a network shall be good and small: it is compared only with those that cost no more.

Optuna does not prune with two objectives, for a curve says nothing of the second. Here the second, the cost, is known
before training. A trial is pruned when the recipe's rule says so among the trials of no larger cost: it is then on its
way to be dominated. A small network is never pruned for being beaten by a larger one.
"""

import math
from collections.abc import Container
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.store.record import TrialAttributes
from hpo.strategy.cached_storage import CachedStorage


class ParetoStorage:
    """A mirror as a pruner shall see it: one objective, and of the trials those that cost no more than a limit."""

    def __init__(self, mirror: CachedStorage) -> None:
        self._mirror = mirror
        self.limit = math.inf

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mirror, name)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._mirror.get_study_directions(study_id)[:1]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        key, trials = TrialAttributes.cost.key, self._mirror.get_all_trials(study_id, deepcopy, states)
        return [trial for trial in trials if trial.system_attrs.get(key, math.inf) <= self.limit]
