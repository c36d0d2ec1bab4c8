"""Warm starts, and draws that were drawn before."""

from pathlib import Path

import pytest

from hpo.config import MLP, TrialConfig
from hpo.results.warm_start import warm_start
from hpo.space import SearchSpace, load_space
from hpo.store.database.connect import Store
from hpo.suggesters import RandomSuggester
from hpo.training.simulated import SimulatedEngine
from hpo.transfer import NOT_COMPARED, draws_for
from tests.helpers.oracles import FixedTrialLike
from tests.helpers.studies import MakeStudy, on_sqlite, small_space, trials_of, work


@pytest.mark.parametrize("name", ["ann_fashion", "cnn_fashion", "ann_digits", "ann_breast_cancer"])
def test_every_config_of_a_space_fits_that_space(name: str) -> None:
    space = load_space(name)
    for i in range(100):
        suggester = RandomSuggester(i)
        config = space.draw(suggester, seed=i)
        draws = draws_for(space, config)
        assert space.draw(FixedTrialLike(draws), seed=i) == config


def comparable(config: TrialConfig) -> dict[str, object]:
    return {k: v for k, v in config.to_dict().items() if k not in NOT_COMPARED}


def test_what_does_not_fit_says_why() -> None:
    config = small_space().draw(RandomSuggester(3), seed=0)
    assert isinstance(config.model, MLP)
    depth = len(config.model.dropout)
    narrow = small_space(mlp={"depth": depth, "width": {"low": 72, "high": 80}})
    with pytest.raises(ValueError, match=r"mlp\.0\.width: must lie in 72\.\.80"):
        draws_for(narrow, config)
    with pytest.raises(ValueError, match="its family is mlp, the space's is cnn"):
        draws_for(load_space("cnn_fashion"), config)
    normed = small_space(mlp={"depth": depth, "width": {"low": 8, "high": 64, "step": 8}, "norm": "batch"})
    with pytest.raises(ValueError, match=r"model\.norm: is none, the space gives batch"):
        draws_for(normed, config)


def test_the_best_of_an_earlier_study_is_tried_first(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    earlier = make_study("earlier", trials=12)
    work(store, earlier, SimulatedEngine(), tmp_path)
    wider: dict[str, object] = {"mlp": {"depth": {"low": 1, "high": 4}, "width": {"low": 8, "high": 128, "step": 8}}}
    later = make_study("later", trials=8, space=wider, seed=5)
    said = warm_start(store, later, "earlier")
    assert len(said) == 5 and all(reason == "" for _, _, reason in said)
    assert warm_start(store, later, "earlier") == [], "not twice"
    work(store, later, SimulatedEngine(), tmp_path)
    source = {t.number: t for t in trials_of(store, earlier)}
    found = trials_of(store, later)
    assert len(found) == 8
    for trial, (number, _, _) in zip(found, said, strict=False):
        assert trial.user_attrs["warm_from"]["trial"] == number
        one, other = (TrialConfig.from_dict(t.user_attrs["config"], "t") for t in (trial, source[number]))
        assert comparable(one) == comparable(other)


def tiny_space() -> dict[str, object]:
    """Six configurations in all."""
    return {
        "mlp": {"depth": 1, "width": {"low": 8, "high": 24, "step": 8}},
        "optimizer": {"name": {"choices": ["sgd", "adam"]}, "lr": 0.01},
    }


@pytest.mark.slow
def test_a_configuration_is_not_trained_twice(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=9, space=tiny_space())
    work(store, study, SimulatedEngine(), tmp_path)
    found = trials_of(store, study)
    drawn = [tuple(sorted(t.params.items())) for t in found]
    assert len(set(drawn[:6])) == 6, "all six first"
    assert len(set(drawn)) == 6 and len({t.user_attrs["config"]["seed"] for t in found}) == 9, "then other seeds"
    for trial in found:  # nothing is left of draws that were given up
        config = TrialConfig.from_dict(trial.user_attrs["config"], "t")
        space: SearchSpace = study.space
        assert space.draw(FixedTrialLike(dict(trial.params)), config.seed) == config


@on_sqlite
def test_a_recipe_may_allow_duplicates(store: Store, tmp_path: Path) -> None:
    from hpo.recipe import Budget, Pruner, StudyRecipe
    from hpo.store import studies

    recipe = StudyRecipe(budget=Budget(trials=12), pruner=Pruner(name="none"), duplicates="new_seed")
    studies.create(store, "s", "small", small_space(**tiny_space()), recipe, "f" * 64)
    study = studies.load_study(store, "s")
    work(store, study, SimulatedEngine(), tmp_path)
    drawn = [tuple(sorted(t.params.items())) for t in trials_of(store, study)]
    assert len(set(drawn[:6])) < 6
