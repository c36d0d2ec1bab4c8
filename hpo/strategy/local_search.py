"""Local search: some draws vary one of the best configurations in a few parameters, the others are the sampler's own.

What a model of all trials sees only after dozens of them, a step from a good configuration finds at once: networks that
practice has found good have better ones near them. Such a step also costs about what its origin cost, so that no epochs
go to wide networks in small batches (Wu, Wang and Huang 2021, arXiv:2005.01571, search from a cheap start for that).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

CHANGES = 2.0
"""Expected number of parameters that a step changes: at least one, of few parameters half."""
STEP = 0.1
"""Standard deviation of a change, as a share of the parameter's range on its own scale."""
REDRAWN = 0.25
"""Share of the changes that go anywhere in the range (`resample_probability` of population based training, Jaderberg et
al. 2017, arXiv:1711.09846, in Ray Tune)."""

Space = dict[str, BaseDistribution]
Parents = Callable[[], Sequence[tuple[FrozenTrial, float]]]
"""Good trials at which a step can begin, each with its weight; none while too few trials are finished."""


class LocalSearch(BaseSampler):
    """Draws near the best configurations with a given probability, and else as another sampler does."""

    def __init__(self, sampler: BaseSampler, parents: Parents, *, share: float) -> None:
        """`share` is the probability of a step."""
        self._sampler, self._parents, self._share = sampler, parents, share
        self._random = np.random.default_rng(0)
        self._parent: FrozenTrial | None = None

    def reseed_for(self, seed: int) -> None:
        """Have the next draw follow from a seed and the trials that are known."""
        self._random = np.random.default_rng(seed)
        self._parent = None
        if self._random.random() < self._share and (parents := self._parents()):
            weights = np.array([weight for _, weight in parents])
            self._parent = parents[int(self._random.choice(len(parents), p=weights / weights.sum()))][0]

    @override
    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Space:
        if self._parent is None:
            return self._sampler.infer_relative_search_space(study, trial)
        return dict(sorted(self._parent.distributions.items()))

    @override
    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:
        if self._parent is None:
            return self._sampler.sample_relative(study, trial, search_space)
        free = [n for n, each in search_space.items() if not each.single() and not _names_a_scale(n, search_space)]
        changed = {name for name in free if self._random.random() < min(0.5, CHANGES / len(free))}
        if not changed and free:
            changed = {free[int(self._random.integers(len(free)))]}
        params = {name: self._parent.params[name] for name in search_space}
        return params | {name: varied(params[name], search_space[name], self._random) for name in sorted(changed)}

    @override
    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    @override
    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(study, trial)

    @override
    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._sampler.after_trial(study, trial, state, values)


def _names_a_scale(name: str, space: Space) -> bool:
    """Say whether a parameter names that for which others are set: `optimizer.name` where `optimizer.lr` is drawn.

    A good learning rate of AdamW is a hundredth of SGD's, so that a step from one to the other leads nowhere.
    """
    section, _, field = name.rpartition(".")
    return field == "name" and any(other.startswith(f"{section}.") for other in space if other != name)


def varied(value: Any, distribution: BaseDistribution, random: np.random.Generator) -> Any:
    """Return another value of a range, mostly near: a normal step on its own scale, the next choice of numbers."""
    anywhere = random.random() < REDRAWN
    match distribution:
        case CategoricalDistribution(choices=choices):
            index = choices.index(value)
            if not anywhere and all(isinstance(c, int | float) and not isinstance(c, bool) for c in choices):
                beside = [i for i in (index - 1, index + 1) if 0 <= i < len(choices)]
            else:
                beside = [i for i in range(len(choices)) if i != index]
            return choices[beside[int(random.integers(len(beside)))]]
        case (
            FloatDistribution(low=low, high=high, log=log, step=step)
            | IntDistribution(low=low, high=high, log=log, step=step)
        ):
            low_, high_, at = np.log([low, high, value]) if log else np.array([low, high, value], dtype=float)
            move = random.uniform(low_, high_) - at if anywhere else random.normal(0.0, STEP * (high_ - low_))
            moved = at + move
            if not low_ <= moved <= high_:
                moved = at - move
            new = float(np.clip(np.exp(moved) if log else moved, low, high))
            if step is None:
                return new
            steps = round((new - low) / step)
            if low + steps * step == value:  # at least one step, in the direction of the change if there is room
                steps += 1 if (move > 0 and value < high) or value <= low else -1
            return low + steps * step if isinstance(distribution, FloatDistribution) else int(low + steps * step)
    raise TypeError(f"unknown distribution {distribution}")
