"""The search of one study: which configuration a trial gets, and whether it is pruned."""

import copy
from functools import partial

import optuna
from optuna.study import Study
from optuna.trial import Trial, TrialState

from hpo.config import TrialConfig
from hpo.config.metrics import BEST
from hpo.optuna_compat import forget_cached_trials, quiet
from hpo.optuna_compat import trial_id as id_of_trial
from hpo.recipe import StudyRecipe
from hpo.space import SearchSpace
from hpo.store.record import TrialAttributes
from hpo.strategy.cached_storage import CachedStorage
from hpo.strategy.gaussian_process import GaussianProcess
from hpo.strategy.grid_sampler import GridSampler
from hpo.strategy.local_search import LocalSearch, Parents
from hpo.strategy.pruner_view import PrunerView
from hpo.strategy.pruners import make_pruner
from hpo.strategy.sampler_view import ModelView, SamplerView
from hpo.strategy.samplers import derived_seed, make_sampler
from hpo.strategy.second_chances import SecondChances
from hpo.strategy.study_cache import StudyCache
from hpo.strategy.training_time import TrainingTime, chance_to_keep

ATTEMPTS = 20
"""Most draws for one trial until one is new; then a duplicate is trained, on a seed of its own."""
COSTLY_ATTEMPTS = 5
"""Most draws for one trial of which the first are refused for the time that they would train."""
ENOUGH_TO_RANK = 8
"""Fewest complete trials for which importances are computed."""


class StudySearch:
    """Draws configurations and decides on pruning, from the cache of a study alone."""

    def __init__(self, cache: StudyCache, space: SearchSpace, recipe: StudyRecipe) -> None:
        self.cache, self.space, self.recipe = cache, space, recipe
        with quiet():  # some samplers are experimental
            self._sampler = make_sampler(recipe.sampler, recipe.seed, space)
        epochs, best = space.max_epochs, BEST[space.metric]
        startup = recipe.sampler.startup_trials
        model_view = ModelView(cache, epochs, best, startup)
        self._parents: Parents = partial(model_view.parents, startup)
        self._local = LocalSearch(self._sampler, self._parents, share=recipe.sampler.local_share)
        self._is_cost_aware = recipe.sampler.cost_aware and recipe.cost is None
        self._view = model_view if isinstance(self._sampler, GaussianProcess) else SamplerView(cache)
        self._study = Study(cache.study_name, self._view, sampler=self._local)
        self._pruner_view = PrunerView(cache, epochs, recipe.pruner.compare, best)
        self.second_chances = SecondChances(cache, epochs, best)
        self._pruning = Study(cache.study_name, self._pruner_view, pruner=make_pruner(recipe.pruner, epochs))

    def draw(self, trial_id: int, number: int) -> TrialConfig:
        """Draw a trial's configuration. It follows from the study's seed, the trial's number and the known trials."""
        before = copy.deepcopy(self.cache.trial(trial_id))  # Optuna's Trial changes the one it is given
        is_free = TrialAttributes.of(before).fixed_params is None and not isinstance(self._sampler, GridSampler)
        for attempt in range(ATTEMPTS):
            config = self._draw_once(before, trial_id, number, attempt)
            if not is_free or not self._is_refused(trial_id, number, attempt):
                break
            self.cache.undo_draw(copy.deepcopy(before))
        self.cache.commit_draw()
        return config

    def _is_refused(self, trial_id: int, number: int, attempt: int) -> bool:
        """Say whether a trial is drawn again: as a duplicate of another, or because it would train too long."""
        if attempt == ATTEMPTS - 1:
            return False
        if self.recipe.duplicates == "ask_again" and self._is_duplicate(trial_id):
            return True
        return self._is_cost_aware and attempt < COSTLY_ATTEMPTS - 1 and self._is_too_long(trial_id, number, attempt)

    def _is_too_long(self, trial_id: int, number: int, attempt: int) -> bool:
        """Say, by a coin that the seed tosses, whether a trial would train too long beside the best ones."""
        time = TrainingTime.learned_from(t for t in self.cache.visible_trials() if t.state.is_finished())
        best = self._parents()
        if time is None or not best:
            return False
        chance = chance_to_keep(time, self.cache.trial(trial_id).params, best)
        return derived_seed(self.recipe.seed, f"keep/{attempt}", number) >= chance * 2**31

    def _draw_once(self, before: optuna.trial.FrozenTrial, trial_id: int, number: int, attempt: int) -> TrialConfig:
        if isinstance(self._sampler, GridSampler):
            self._sampler.choose(before, self.cache.all_trials())
        else:
            purpose = f"draw/{attempt}" if attempt else "draw"
            self._sampler.reseed_for(derived_seed(self.recipe.seed, purpose, number), number, attempt)
            self._local.reseed_for(derived_seed(self.recipe.seed, f"local {purpose}", number))
        forget_cached_trials(self._study)
        self._view.begin_draw(trial_id)
        self.cache.begin_draw()
        config = self.space.draw(Trial(self._study, trial_id), derived_seed(self.recipe.seed, "train", number))
        if isinstance(self._sampler, GaussianProcess) and self._sampler.failure:
            self.cache.note(trial_id, TrialAttributes.drawn_at_random.entry(self._sampler.failure))
        return config

    @property
    def is_endless(self) -> bool:
        """Whether there is always another configuration to draw: everywhere but in a grid."""
        return not isinstance(self._sampler, GridSampler)

    def undrawn(self) -> int:
        """Return how many configurations of the grid no trial has."""
        assert isinstance(self._sampler, GridSampler)
        return self._sampler.size - len(self._sampler.taken(self.cache.all_trials()))

    def _is_duplicate(self, trial_id: int) -> bool:
        """Say whether another trial has the same parameters; failed ones do not count."""
        params = self.cache.trial(trial_id).params
        known = self.cache.visible_trials() + self.cache.infeasible_trials()
        return any(t.params == params for t in known if id_of_trial(t) != trial_id)

    def should_prune(self, trial_id: int) -> bool:
        """Say whether the pruner ends a trial after its latest report."""
        trial = self.cache.trial(trial_id)
        self._pruner_view.begin_decision(trial)
        return bool(self._pruning.pruner.prune(self._pruning, self._pruner_view.shown(trial)))

    def importances(self) -> dict[str, float]:
        """Return the importance of each parameter that all complete trials have (PED-ANOVA); empty for few trials."""
        if len(self.cache.visible_trials((TrialState.COMPLETE,))) < ENOUGH_TO_RANK:
            return {}
        try:
            with quiet():  # parameters that few trials have
                return self._importances()
        except (ValueError, RuntimeError):  # no parameter that all have, or values without any spread
            return {}

    def _importances(self) -> dict[str, float]:
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        study = Study(self.cache.study_name, CachedStorage(self.cache))
        if self.recipe.cost is None:
            return optuna.importance.get_param_importances(study, evaluator=evaluator)
        # Of the metric; PED-ANOVA takes the values of a target function as something to be minimized.
        return optuna.importance.get_param_importances(study, evaluator=evaluator, target=lambda t: -t.values[0])

    def finish(self, trial_id: int, state: TrialState, value: float | None) -> None:
        """End a trial, with its value of the metric; its cost is known."""
        trial = self.cache.trial(trial_id)
        values = None if value is None else [value]
        if values is not None and self.recipe.cost is not None:
            cost = TrialAttributes.of(trial).cost
            assert cost is not None, "the cost is noted before training"
            values.append(cost)
        self._local.after_trial(self._study, trial, state, values)
        self.cache.set_state(trial_id, state, values)
