"""The Gaussian process: Optuna's, which here learns from every finished trial and draws every parameter.

As Optuna ships it, it learns from complete trials, of which pruning leaves few, and draws only the parameters that all
of them have. Here it is shown all rows with all parameters (`hpo.strategy.sampler_view.ModelView`).
`benchmarks/recipes.py` compares it with TPE.
"""

from typing import Any

from optuna import samplers
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from hpo.optuna_compat import forget_fitted_models, limit_acquisition_effort, propose, seed_sampler
from hpo.strategy.sampler_view import distributions_of

MODEL_ATTEMPTS = 3
"""Attempts at a trial that the model draws; where they all gave known configurations, the rest are random."""


class GaussianProcess(samplers.GPSampler):
    """Draws what promises the largest expected improvement, given the trials that are under way."""

    def __init__(self, startup_trials: int) -> None:
        self._random = samplers.RandomSampler()
        super().__init__(
            n_startup_trials=startup_trials, independent_sampler=self._random, warn_independent_sampling=False
        )
        limit_acquisition_effort(self, candidates=1024, searches=5, samples=64)
        self._startup_trials, self._attempt = startup_trials, 0
        self.failure = ""
        """Why the model could not draw the latest trial; empty if it could."""

    def reseed_for(self, seed: int, number: int, attempt: int) -> None:
        """Have the next draw follow from a seed and the trials that are shown."""
        seed_sampler(self, seed)
        seed_sampler(self._random, seed)
        forget_fitted_models(self)
        self._attempt, self.failure = attempt, ""

    @override
    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        shown = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return {name: each for name, each in distributions_of(shown).items() if not each.single()}

    @override
    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
        complete = [t for t in trials if t.state == TrialState.COMPLETE]
        if not search_space or len(complete) < self._startup_trials or self._attempt >= MODEL_ATTEMPTS:
            return {}
        running = [t for t in trials if t.state == TrialState.RUNNING and search_space.keys() <= t.params.keys()]
        try:
            return propose(self, study, complete, running, search_space)
        except (RuntimeError, ValueError, ArithmeticError, AssertionError) as error:  # a kernel without an inverse, say
            self.failure = f"{type(error).__name__}: {error}".splitlines()[0]
            return {}
