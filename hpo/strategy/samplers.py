"""Samplers: Optuna's own, seeded so that a trial's draw does not depend on the worker that draws it."""

import hashlib

from optuna import samplers

from hpo.optuna_compat import NumberedQMCSampler, seed_sampler
from hpo.recipe import Sampler
from hpo.space import SearchSpace
from hpo.strategy.gaussian_process import GaussianProcess
from hpo.strategy.grid_sampler import GridSampler


def derived_seed(seed: int, purpose: str, number: int) -> int:
    """Return a seed in 0..2**31-1 that follows from a study's seed, a purpose and a trial's number."""
    text = f"{seed}/{purpose}/{number}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little") >> 1


class _TPE(samplers.TPESampler):
    def reseed_for(self, seed: int, number: int, attempt: int) -> None:
        seed_sampler(self, seed)


class _Random(samplers.RandomSampler):
    def reseed_for(self, seed: int, number: int, attempt: int) -> None:
        seed_sampler(self, seed)


class _QMC(NumberedQMCSampler):
    def __init__(self, seed: int) -> None:
        self._random = _Random()
        super().__init__(scramble=True, seed=seed, independent_sampler=self._random, warn_independent_sampling=False)

    def reseed_for(self, seed: int, number: int, attempt: int) -> None:
        self.point = number + 10_000 * attempt
        seed_sampler(self._random, seed)


class _NSGA2(samplers.NSGAIISampler):
    def reseed_for(self, seed: int, number: int, attempt: int) -> None:
        seed_sampler(self, seed)


SeededSampler = _TPE | _Random | GaussianProcess | _QMC | _NSGA2 | GridSampler


def make_sampler(recipe: Sampler, seed: int, space: SearchSpace) -> SeededSampler:
    """Return the sampler that a recipe names; `seed` is the study's. Raises: UsageError for a grid without end."""
    match recipe.name:
        case "grid":
            return GridSampler(space, derived_seed(seed, "grid", 0))
        case "nsga2":
            return _NSGA2(population_size=recipe.population)
        case "random":
            return _Random()
        case "gp":
            return GaussianProcess(recipe.startup_trials)
        case "qmc":
            return _QMC(seed)
        case "tpe":
            return _TPE(n_startup_trials=recipe.startup_trials)
