"""Every private name of Optuna that hpo uses, in one place; `tests/test_optuna_compat.py` says which one is gone.

The names are those of Optuna 5.0. Nothing else in hpo may use a name of Optuna's that begins with an underscore.
"""

import contextlib
import warnings
from abc import abstractmethod
from collections.abc import Container, Iterator
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

__all__ = [
    "BulkReadingStorage",
    "FrozenStudy",
    "NumberedQMCSampler",
    "forget_cached_trials",
    "forget_fitted_models",
    "limit_acquisition_effort",
    "propose",
    "quiet",
    "seed_sampler",
    "silence",
    "trial_id",
]


def silence() -> None:
    """Have Optuna log errors alone and warn of no experimental features: call once, where a process begins."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within a context, have Optuna log errors alone, and ignore warnings."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def trial_id(trial: FrozenTrial) -> int:
    """Return the id of a trial in its store; the number that people see is another one."""
    return trial._trial_id


def forget_cached_trials(study: Study) -> None:
    """Drop the trials that a study keeps for the sampler during a draw: they outlive the trial."""
    study._thread_local.cached_all_trials = None


def seed_sampler(sampler: BaseSampler, seed: int) -> None:
    """Seed the random generators of a TPE, random, Gaussian process or NSGA-II sampler."""
    sampler._rng.rng.seed(seed)  # type: ignore[attr-defined]
    random_sampler = getattr(sampler, "_random_sampler", None)
    if random_sampler is not None:
        random_sampler._rng.rng.seed(seed)


def forget_fitted_models(sampler: optuna.samplers.GPSampler) -> None:
    """Drop what a Gaussian process sampler begins its next fit from: a draw would depend on who drew before."""
    sampler._gprs_cache_list = sampler._constraints_gprs_cache_list = None


def limit_acquisition_effort(
    sampler: optuna.samplers.GPSampler, *, candidates: int, searches: int, samples: int
) -> None:
    """Limit the random candidates, the local searches and the fantasy samples of a Gaussian process sampler's draw."""
    sampler._n_preliminary_samples, sampler._n_local_search = candidates, searches
    sampler._n_qmc_samples_qei = sampler._n_qmc_samples_ehvi = samples


def propose(
    sampler: optuna.samplers.GPSampler,
    study: Study,
    complete: list[FrozenTrial],
    running: list[FrozenTrial],
    search_space: dict[str, BaseDistribution],
) -> dict[str, Any]:
    """Return what a Gaussian process sampler draws, given trials that all have every parameter of `search_space`.

    As its `sample_relative`, without torch's device context, which slows every call of torch down (a draw took 0.26 s
    of CPU time in it, 0.20 s without).
    """
    return sampler._sample_relative_impl(study, complete, running, search_space)


class NumberedQMCSampler(optuna.samplers.QMCSampler):
    """Sobol's sequence, of which each trial takes the point with its own number: workers need not coordinate."""

    point = 0
    """Index of the point that the next draw takes."""

    def _find_sample_id(self, study: Study, search_space: object) -> int:
        return self.point


class BulkReadingStorage(RDBStorage):
    """Optuna's storage, with one method through which all trials of a study are read."""

    @abstractmethod
    def load(self, study_id: int, newer_than: int, also: set[int]) -> list[FrozenTrial]:
        """Return the trials with an id above `newer_than`, and those whose ids are in `also`, by number."""

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        older = {i for i in included_trial_ids if i <= trial_id_greater_than}
        trials = self.load(study_id, trial_id_greater_than, older)
        return [trial for trial in trials if states is None or trial.state in states]
