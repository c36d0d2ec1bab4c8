"""Samplers and pruners: Optuna's own, seeded so that a trial's draw does not depend on who draws it."""

import copy
import hashlib
import math
import warnings
from typing import cast

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import Trial, TrialState

from hpo.config import TrialConfig
from hpo.recipe import Pruner, Sampler, StudyRecipe
from hpo.search.cached_storage import CachedStorage
from hpo.search.grid_sampler import GridSampler
from hpo.search.pareto_pruning import ParetoStorage
from hpo.space import SearchSpace
from hpo.store.leases.stopping import COST

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


ATTEMPTS = 20
"""So often a sampler is asked for something new; then a duplicate is trained, on a seed of its own."""


ENOUGH_TO_RANK = 8
"""Complete trials without which importances say nothing."""


def derived_seed(seed: int, purpose: str, number: int) -> int:
    """Return a seed in 0..2**31-1 that follows from a study's seed, a purpose and a trial's number."""
    text = f"{seed}/{purpose}/{number}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little") >> 1


class _TPE(optuna.samplers.TPESampler):
    def reseed(self, seed: int, number: int) -> None:
        self._rng.rng.seed(seed)
        self._random_sampler._rng.rng.seed(seed)


class _Random(optuna.samplers.RandomSampler):
    def reseed(self, seed: int, number: int) -> None:
        self._rng.rng.seed(seed)


class _GP(optuna.samplers.GPSampler):
    def __init__(self, startup_trials: int) -> None:
        self._random = _Random()
        super().__init__(
            n_startup_trials=startup_trials, independent_sampler=self._random, warn_independent_sampling=False
        )

    def reseed(self, seed: int, number: int) -> None:
        self._rng.rng.seed(seed)
        self._random.reseed(seed, number)
        # What an earlier fit began from: a draw would depend on who drew before.
        self._gprs_cache_list = self._constraints_gprs_cache_list = None


class _QMC(optuna.samplers.QMCSampler):
    """Sobol's sequence, walked by the trials' numbers: workers need not agree on whose turn it is."""

    def __init__(self, seed: int) -> None:
        self._random = _Random()
        super().__init__(scramble=True, seed=seed, independent_sampler=self._random, warn_independent_sampling=False)

    def reseed(self, seed: int, number: int) -> None:
        self._number = number
        self._random.reseed(seed, number)

    def _find_sample_id(self, study: Study, search_space: object) -> int:
        return self._number


class _NSGA2(optuna.samplers.NSGAIISampler):
    def reseed(self, seed: int, number: int) -> None:
        self._rng.rng.seed(seed)
        self._random_sampler._rng.rng.seed(seed)


SeededSampler = _TPE | _Random | _GP | _QMC | _NSGA2 | GridSampler


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
            return _GP(recipe.startup_trials)
        case "qmc":
            return _QMC(seed)
        case "tpe":
            return _TPE(n_startup_trials=recipe.startup_trials)


def make_pruner(recipe: Pruner, epochs: int) -> BasePruner:
    """Return the pruner that a recipe names for trainings of so many epochs; it is only told whole epochs, from 1."""
    match recipe.name:
        case "successive_halving":
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=recipe.min_epochs, reduction_factor=recipe.reduction
            )
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=recipe.startup_trials, n_warmup_steps=recipe.min_epochs)
        case "hyperband":
            return optuna.pruners.HyperbandPruner(
                min_resource=recipe.min_epochs, max_resource=epochs, reduction_factor=recipe.reduction
            )
        case "percentile":
            return optuna.pruners.PercentilePruner(
                recipe.percentile, n_startup_trials=recipe.startup_trials, n_warmup_steps=recipe.min_epochs
            )
        case "patient":
            return optuna.pruners.PatientPruner(None, patience=recipe.patience)
        case "threshold":
            return optuna.pruners.ThresholdPruner(lower=recipe.threshold, n_warmup_steps=recipe.min_epochs)
        case "none":
            return optuna.pruners.NopPruner()


class StudySearch:
    """Draws configs and decides on pruning, from a mirror of the study alone."""

    def __init__(self, mirror: CachedStorage, space: SearchSpace, recipe: StudyRecipe) -> None:
        self.mirror, self.space, self.recipe = mirror, space, recipe
        self.sampler = make_sampler(recipe.sampler, recipe.seed, space)
        self.study = Study(mirror.study_name, mirror, sampler=self.sampler)
        self.rivals = ParetoStorage(mirror)
        pruner = make_pruner(recipe.pruner, space.max_epochs)
        self.pruning = Study(mirror.study_name, cast(BaseStorage, self.rivals), pruner=pruner)

    def draw(self, trial_id: int, number: int) -> TrialConfig:
        """Draw a trial's config. It follows from the study's seed, the trial's number and what is known."""
        before = copy.deepcopy(self.mirror.get_trial(trial_id))  # Optuna's Trial changes the one it is given
        again = self.recipe.duplicates == "ask_again" and "fixed_params" not in before.system_attrs
        again = again and not isinstance(self.sampler, GridSampler)
        for attempt in range(ATTEMPTS if again else 1):
            purpose = f"draw/{attempt}" if attempt else "draw"
            if isinstance(self.sampler, GridSampler):
                self.sampler.choose(before, self.mirror.everything())
            else:
                self.sampler.reseed(derived_seed(self.recipe.seed, purpose, number), number + 10_000 * attempt)
            self.study._thread_local.cached_all_trials = None  # it is filled by the sampler and outlives a trial
            self.mirror.hold()
            config = self.space.draw(Trial(self.study, trial_id), derived_seed(self.recipe.seed, "train", number))
            if again and attempt < ATTEMPTS - 1 and self._is_known(trial_id):
                self.mirror.let_go(undo=copy.deepcopy(before))
                continue
            self.mirror.let_go()
            break
        return config

    @property
    def is_endless(self) -> bool:
        """Whether there is always something more to draw: everywhere but in a grid."""
        return not isinstance(self.sampler, GridSampler)

    def undrawn(self) -> int:
        """Return how many configurations of the grid no trial has."""
        assert isinstance(self.sampler, GridSampler)
        return self.sampler.size - len(self.sampler.taken(self.mirror.everything()))

    def _is_known(self, trial_id: int) -> bool:
        """Say whether another trial has the same parameters; what failed is drawn again in any case."""
        params = self.mirror.get_trial(trial_id).params
        others = self.mirror.get_all_trials(self.mirror.study_id, deepcopy=False)
        return any(other.params == params for other in others if other._trial_id != trial_id)

    def should_prune(self, trial_id: int) -> bool:
        """Say whether the pruner ends a trial after its latest report, among those that cost no more."""
        trial = self.mirror.get_trial(trial_id)
        self.rivals.limit = trial.system_attrs.get(COST, math.inf)
        return bool(self.pruning.pruner.prune(self.pruning, trial))

    def importances(self) -> dict[str, float]:
        """Return how much each parameter that all complete trials have matters (PED-ANOVA); empty for few trials."""
        complete = self.mirror.get_all_trials(self.mirror.study_id, deepcopy=False, states=(TrialState.COMPLETE,))
        if len(complete) < ENOUGH_TO_RANK:
            return {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of parameters that few trials have
                return self._importances()
        except (ValueError, RuntimeError):  # no parameter that all have, or values without any spread
            return {}

    def _importances(self) -> dict[str, float]:
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        if self.recipe.cost is None:
            return optuna.importance.get_param_importances(self.study, evaluator=evaluator)
        # Of the metric; PED-ANOVA takes a target of one's own for something to be minimized.
        return optuna.importance.get_param_importances(self.study, evaluator=evaluator, target=lambda t: -t.values[0])

    def tell(self, trial_id: int, state: TrialState, value: float | None) -> None:
        """End a trial, with its value of the metric; its cost is known."""
        values = None if value is None else [value]
        if values is not None and self.recipe.cost is not None:
            values.append(self.mirror.get_trial(trial_id).system_attrs[COST])
        sampler: BaseSampler = self.sampler
        sampler.after_trial(self.study, self.mirror.get_trial(trial_id), state, values)
        self.mirror.set_trial_state_values(trial_id, state, values)
