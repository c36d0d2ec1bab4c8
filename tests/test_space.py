"""Spaces: every draw makes a network, whoever suggests, and baselines are the networks they name."""

import json
import shutil
from pathlib import Path

import optuna
import pytest
import torch

from hpo import documents, space
from hpo.config import MLP, SGD, TrialConfig
from hpo.data import info
from hpo.errors import DocumentError
from hpo.models import build_model
from hpo.space import SearchSpace
from hpo.suggesters import FixedSuggester, RandomSuggester
from hpo.transfer import draws_for
from tests.helpers.documents import SPACES
from tests.helpers.studies import small_space


@pytest.mark.parametrize("name", SPACES)
def test_200_random_draws_build(name: str) -> None:
    loaded = space.load_space(name)
    # A space without data is for the user's own: as breast cancer's rows, or as digits of four times their size.
    shape: tuple[int, ...] = (30,) if loaded.mlp else (3, 32, 32)
    classes = 2
    if loaded.data is not None:
        shape, classes = info(loaded.data).input_shape, len(info(loaded.data).classes)
    rows = torch.empty(2, *shape, device="meta")
    for seed in range(200):
        config = loaded.draw(RandomSuggester(seed), seed)
        with torch.device("meta"):
            model = build_model(config.model, shape, classes)
            assert model(rows).shape == (2, classes)
        assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict())), "draw") == config


@pytest.mark.parametrize("name", SPACES)
def test_optuna_draws_what_its_trial_replays(name: str) -> None:
    loaded = space.load_space(name)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for seed in range(30):
        trial = study.ask()
        config = loaded.draw(trial, seed)
        assert loaded.draw(optuna.trial.FixedTrial(trial.params), seed) == config
        assert loaded.draw(FixedSuggester(trial.params), seed) == config
        study.tell(trial, 0.0)


def test_trials_of_version_0_1_0_replay_to_their_stored_configs(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    shutil.copy(Path(__file__).parent / "fixtures" / "v0.1.0" / "studies.db", path)
    stored = optuna.load_study(study_name="digits", storage=f"sqlite:///{path}")
    walked = documents.check(SearchSpace, stored.user_attrs["space"], "0.1.0")
    trials = [trial for trial in stored.trials if "config" in trial.user_attrs]
    assert len(trials) == 8
    for trial in trials:
        config = TrialConfig.from_dict(trial.user_attrs["config"], "0.1.0")
        assert walked.draw(FixedSuggester(trial.params), config.seed) == config
        assert draws_for(walked, config) == pytest.approx(trial.params)


@pytest.mark.parametrize("name", SPACES)
def test_baselines_draw(name: str) -> None:
    loaded = space.load_space(name)
    assert loaded.baselines
    for baseline in loaded.baselines:
        loaded.draw(FixedSuggester(baseline.values()), 0)


def test_the_baseline_of_ann_fashion_is_the_network_people_choose_by_hand() -> None:
    loaded = space.load_space("ann_fashion")
    config = loaded.draw(FixedSuggester(loaded.baselines[1].values()), 0)
    assert config.model == MLP((128, 64), (0.3, 0.3), activation="relu", norm="batch")
    assert config.optimizer == SGD(lr=0.1, weight_decay=1e-6)
    assert config.batch_size == 64


def names_drawn(loaded: SearchSpace, seed: int = 0) -> list[str]:
    suggester = RandomSuggester(seed)
    loaded.draw(suggester, 0)
    return list(suggester.drawn)


def test_depth_is_drawn_first_then_each_layer() -> None:
    width = {"low": 8, "high": 64, "step": 8}
    drawn = names_drawn(small_space(mlp={"depth": 2, "width": width, "dropout": {"low": 0.0, "high": 0.5}}))
    assert drawn[:4] == ["mlp.0.width", "mlp.1.width", "mlp.0.dropout", "mlp.1.dropout"]


def test_shared_fields_are_drawn_once() -> None:
    width, rate = {"low": 8, "high": 64, "step": 8, "shared": True}, {"low": 0.0, "high": 0.5, "shared": True}
    loaded = small_space(mlp={"depth": 3, "width": width, "dropout": rate})
    assert names_drawn(loaded)[:2] == ["mlp.width", "mlp.dropout"]
    model = loaded.draw(RandomSuggester(0), 0).model
    assert isinstance(model, MLP) and len(set(model.widths)) == len(set(model.dropout)) == 1


def test_a_taper_narrows_layer_by_layer_in_whole_steps() -> None:
    loaded = small_space(mlp={"depth": 4, "width": {"low": 8, "high": 256, "step": 8}, "taper": 0.5})
    model = loaded.draw(FixedSuggester({"mlp.width": 192, "optimizer.name": "sgd", "optimizer.lr": 0.1}), 0).model
    assert isinstance(model, MLP) and model.widths == (192, 96, 48, 24)


def test_an_optimizers_own_range_goes_before_the_common_one() -> None:
    lr = {"low": 1e-4, "high": 1e-2, "log": True}
    loaded = small_space(optimizer={"name": "sgd", "lr": lr, "sgd": {"lr": {"low": 0.1, "high": 1.0, "log": True}}})
    drawn = RandomSuggester(0)
    assert loaded.draw(drawn, 0).optimizer.lr >= 0.1
    assert "optimizer.sgd.lr" in drawn.drawn and "optimizer.lr" not in drawn.drawn


def test_only_the_drawn_optimizers_hyperparameters_are_drawn() -> None:
    momentum = {"low": 0.8, "high": 0.99}
    for name, asked in (("sgd", False), ("sgd_momentum", True)):
        drawn = names_drawn(small_space(optimizer={"name": name, "lr": 0.1, "momentum": momentum}))
        assert ("optimizer.momentum" in drawn) == asked


def test_images_too_small_for_the_depth_are_refused_before_training() -> None:
    loaded = SearchSpace.model_validate(
        {
            "data": "digits",
            "epochs": 1,
            "batch_size": 32,
            "cnn": {"depth": {"low": 1, "high": 4}, "channels": 8},
            "optimizer": {"name": "adam", "lr": 1e-3},
        }
    )
    with pytest.raises(DocumentError, match=r"x.toml: cnn.depth: .* got depth=4 \(needs 16\) for 8x8 images. Lower"):
        loaded.check_inputs((1, 8, 8), "x.toml")
    with pytest.raises(DocumentError, match=r"cnn: inputs must be images, got rows of 30 numbers. Use \[mlp\]."):
        loaded.check_inputs((30,), "x.toml")


def test_documents_name_only_known_data() -> None:
    for path in (Path(__file__).parent.parent / "search_spaces").glob("*.toml"):
        source = space.load_space(path.stem).data
        assert source is None or info(source)
