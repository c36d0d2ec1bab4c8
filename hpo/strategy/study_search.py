"""The search of one study: which configuration a trial gets, and whether it is pruned."""

import copy
import math
import warnings
from typing import cast

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import Trial, TrialState

from hpo.config import TrialConfig
from hpo.optuna_compat import forget_cached_trials
from hpo.optuna_compat import trial_id as id_of_trial
from hpo.recipe import StudyRecipe
from hpo.space import SearchSpace
from hpo.store.record import TrialAttributes
from hpo.strategy.cached_storage import CachedStorage
from hpo.strategy.grid_sampler import GridSampler
from hpo.strategy.pareto_pruning import ParetoStorage
from hpo.strategy.pruners import make_pruner
from hpo.strategy.samplers import derived_seed, make_sampler

ATTEMPTS = 20
"""How often a sampler is asked for something new; then a duplicate is trained, on a seed of its own."""
ENOUGH_TO_RANK = 8
"""Complete trials below which importances say nothing."""


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
        again = self.recipe.duplicates == "ask_again" and TrialAttributes.of(before).fixed_params is None
        again = again and not isinstance(self.sampler, GridSampler)
        for attempt in range(ATTEMPTS if again else 1):
            purpose = f"draw/{attempt}" if attempt else "draw"
            if isinstance(self.sampler, GridSampler):
                self.sampler.choose(before, self.mirror.everything())
            else:
                self.sampler.reseed_for(derived_seed(self.recipe.seed, purpose, number), number + 10_000 * attempt)
            forget_cached_trials(self.study)
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
        return any(other.params == params for other in others if id_of_trial(other) != trial_id)

    def should_prune(self, trial_id: int) -> bool:
        """Say whether the pruner ends a trial after its latest report, among those that cost no more."""
        trial = self.mirror.get_trial(trial_id)
        self.rivals.limit = trial.system_attrs.get(TrialAttributes.cost.key, math.inf)
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
            values.append(self.mirror.get_trial(trial_id).system_attrs[TrialAttributes.cost.key])
        sampler: BaseSampler = self.sampler
        sampler.after_trial(self.study, self.mirror.get_trial(trial_id), state, values)
        self.mirror.set_trial_state_values(trial_id, state, values)
