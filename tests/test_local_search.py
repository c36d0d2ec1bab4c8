"""Local search: draws near the best configurations."""

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import Trial

from hpo.recipe import Sampler
from hpo.strategy.local_search import LocalSearch, varied
from hpo.strategy.sampler_view import ModelView, SamplerView
from hpo.strategy.study_cache import StudyCache
from tests.test_sampler import COMPLETE, LR, MOMENTUM, OPTIMIZER, PARAMS, PRUNED, Trials, rising

RANGES: list[tuple[BaseDistribution, Any]] = [
    (FloatDistribution(1e-5, 1e-1, log=True), 2e-3),
    (FloatDistribution(1e-5, 1e-1, log=True), 1e-1),
    (FloatDistribution(0.0, 0.5, step=0.05), 0.3),
    (FloatDistribution(0.0, 0.5, step=0.05), 0.0),
    (FloatDistribution(-1.0, 1.0), 1.0),
    (IntDistribution(1, 5), 2),
    (IntDistribution(1, 5), 5),
    (IntDistribution(8, 512, step=8), 512),
    (IntDistribution(1, 1000, log=True), 1),
    (CategoricalDistribution([16, 32, 64, 128]), 16),
    (CategoricalDistribution(["relu", "tanh"]), "tanh"),
    (CategoricalDistribution([True, False]), True),
]


@pytest.mark.parametrize(("distribution", "value"), RANGES)
def test_a_changed_value_is_another_one_of_its_range(distribution: BaseDistribution, value: Any) -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        changed = varied(value, distribution, random)
        assert changed != value
        assert distribution._contains(distribution.to_internal_repr(changed))


def test_most_steps_are_small_on_the_scale_of_the_range_and_some_go_anywhere() -> None:
    random = np.random.default_rng(0)
    rates = [varied(1e-3, FloatDistribution(1e-5, 1e-1, log=True), random) for _ in range(400)]
    sizes = np.abs(np.log10(rates) + 3)
    assert 0.2 < np.median(sizes) < 0.5, "about a tenth of four decades"
    assert 0.1 < np.mean(sizes > 1) < 0.2, "half of those that go anywhere"
    batches = [varied(64, CategoricalDistribution([16, 32, 64, 128, 256]), random) for _ in range(400)]
    assert 0.75 < np.mean([batch in (32, 128) for batch in batches]) < 0.95, "numbers among the choices have neighbours"


def test_parents_are_the_best_by_their_value_at_the_end() -> None:
    trials = Trials()
    for end in (0.8, 0.9, 0.85, 0.7, 0.6):
        trials.add(COMPLETE, rising(end))
    promising = trials.add(PRUNED, rising(0.95, 3))
    view = ModelView(trials.cache, 10)
    assert view.parents(least=7) == []
    parents = view.parents(least=6)
    assert [t.number for t, _ in parents] == [promising.number, 1, 2, 0]
    assert [weight for _, weight in parents] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])


def test_parents_of_two_objectives_are_the_front() -> None:
    trials = Trials()
    trials.cache = StudyCache(1, "s", lambda changes: None, two_objectives=True)
    for value, cost in ((0.9, 100), (0.8, 10), (0.7, 50), (0.6, 5)):
        trials.add(COMPLETE, [value], system={"cost": cost})
    parents = ModelView(trials.cache, 1).parents(least=1)
    assert [(t.number, weight) for t, weight in parents] == [(0, 1.0), (1, 1.0), (3, 1.0)]


def drawn(trials: Trials, share: float, count: int) -> list[dict[str, Any]]:
    view, sampler = ModelView(trials.cache, 10), optuna.samplers.RandomSampler(seed=0)
    local = LocalSearch(sampler, lambda: view.parents(3), share=share)
    study = Study("s", SamplerView(trials.cache), sampler=local)
    draws = []
    for seed in range(count):
        trial = trials.add(optuna.trial.TrialState.RUNNING, [], {})
        local.reseed_for(seed)
        trials.cache.begin_draw()
        asked = Trial(study, trial._trial_id)
        params: dict[str, Any] = {"lr": asked.suggest_float("lr", 1e-4, 1e-1, log=True)}
        params["optimizer"] = asked.suggest_categorical("optimizer", ["adam", "sgd"])
        if params["optimizer"] == "sgd":
            params["momentum"] = asked.suggest_float("momentum", 0.8, 0.98, step=0.02)
        draws.append(params)
        trials.cache.undo_draw(trials.add(optuna.trial.TrialState.FAIL, [], {}))
    return draws


def test_a_share_of_the_draws_is_near_the_best() -> None:
    trials = Trials()
    trials.add(
        COMPLETE, rising(0.95), {"lr": (0.003, LR), "optimizer": ("sgd", OPTIMIZER), "momentum": (0.9, MOMENTUM)}
    )
    for end in (0.3, 0.2, 0.1, 0.1):
        trials.add(COMPLETE, rising(end), PARAMS)
    kept = {share: sum(p["lr"] in (0.003, 0.01) for p in drawn(trials, share, 100)) for share in (0.0, 0.5, 1.0)}
    assert kept[0.0] == 0, "random draws"
    assert 10 < kept[0.5] < 35 and 25 < kept[1.0] < 70, "a step changes the rate or another parameter"


def test_nothing_is_near_the_best_before_enough_is_known() -> None:
    trials = Trials()
    for end in (0.95, 0.9):
        trials.add(COMPLETE, rising(end))
    assert drawn(trials, 1.0, 5) == drawn(trials, 0.0, 5)


def test_a_learning_rate_is_not_taken_over_to_another_optimizer() -> None:
    trials = Trials()
    space: dict[str, tuple[Any, BaseDistribution]] = {
        "optimizer.name": ("adamw", CategoricalDistribution(["adamw", "sgd"])),
        "optimizer.lr": (0.002, FloatDistribution(1e-5, 1e-1, log=True)),
        "schedule.name": ("none", CategoricalDistribution(["none", "one_cycle"])),
    }
    trials.add(COMPLETE, rising(0.9), space)
    view = ModelView(trials.cache, 10)
    local = LocalSearch(optuna.samplers.RandomSampler(), lambda: view.parents(1), share=1.0)
    study, steps = Study("s", SamplerView(trials.cache)), []
    for seed in range(50):
        local.reseed_for(seed)
        asked = local.infer_relative_search_space(study, trials.add(PRUNED, [0.1], space))
        steps.append(local.sample_relative(study, trials.add(PRUNED, [0.1], space), asked))
    assert {step["optimizer.name"] for step in steps} == {"adamw"}
    assert {step["schedule.name"] for step in steps} == {"none", "one_cycle"}


def test_a_grid_has_no_steps() -> None:
    with pytest.raises(ValueError, match=r"local_share: a grid draws each of its configurations once, got 0\.5"):
        Sampler(name="grid", local_share=0.5)
