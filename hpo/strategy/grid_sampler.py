"""The grid sampler: every configuration of a space once, in an order that follows from the study's seed.

Optuna's GridSampler wants a flat space and its BruteForceSampler rebuilds a tree for every parameter; both may give
one configuration to two workers. Here a trial takes the first configuration, in the study's order, that no trial of a
smaller number has. The configuration of a trial that was claimed but whose draw is not written yet is derived: its
worker follows the same rule. So workers never choose the same one, without exchanging messages.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from hpo.grid import grid, key_of
from hpo.space import SearchSpace
from hpo.store.record import TrialAttributes


class GridSampler(BaseSampler):
    """Gives each trial its configuration."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._leaves = grid(space)
        random.Random(seed).shuffle(self._leaves)
        self._place = {key_of(leaf): i for i, leaf in enumerate(self._leaves)}
        self._leaf: dict[str, Any] = {}

    @property
    def size(self) -> int:
        """How many configurations there are."""
        return len(self._leaves)

    def taken(self, trials: Iterable[FrozenTrial]) -> set[int]:
        """Return which configurations the trials have; they are in the order of their numbers, failed ones too.

        Configurations of voided trials are free again.
        """
        taken: set[int] = set()
        free = 0
        for trial in trials:
            attributes = TrialAttributes.of(trial)
            if attributes.is_void:
                continue
            place = self._place.get(key_of(attributes.fixed_params or trial.params))
            if place is None and not trial.state.is_finished():  # claimed, its draw not written yet
                while free in taken:
                    free += 1
                place = free if free < self.size else None
            if place is not None:
                taken.add(place)
        return taken

    def choose(self, trial: FrozenTrial, trials: Iterable[FrozenTrial]) -> None:
        """Choose a trial's configuration, given all trials in the order of their numbers.

        Of what is left, or of all if nothing is (the claims see to it that this is rare), it takes the first that has
        the parameters the trial was enqueued with.
        """
        fixed = (TrialAttributes.of(trial).fixed_params or {}).items()
        taken = self.taken(t for t in trials if t.number < trial.number)
        wanted = [i for i, leaf in enumerate(self._leaves) if all(leaf.get(k, v) == v for k, v in fixed)]
        place = next((i for i in wanted if i not in taken), wanted[0] if wanted else 0)
        self._leaf = self._leaves[place]

    @override
    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    @override
    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    @override
    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._leaf[param_name]

    @override
    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        pass
