"""Spaces: every draw makes a network, whoever suggests, and baselines are the networks they name."""

import hashlib
import json
import shutil
from pathlib import Path

import optuna
import pytest
import torch

from hpo import documents, space
from hpo.config import EMA, MLP, SGD, NoAverage, TrialConfig
from hpo.data import info
from hpo.errors import DocumentError
from hpo.models import build_model
from hpo.space import SearchSpace
from hpo.suggesters import FixedSuggester, RandomSuggester
from hpo.transfer import draws_for
from tests.helpers.documents import SPACES
from tests.helpers.studies import small_space

FIXTURE = Path(__file__).parent / "fixtures" / "v0.1.0"


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_200_random_draws_are_kept_exactly_and_build(name: str) -> None:
    """A fourth of them is built."""
    loaded = space.load_space(name)
    # A space without data is for the user's own: as breast cancer's rows, or as digits of four times their size.
    shape: tuple[int, ...] = (30,) if loaded.mlp else (3, 32, 32)
    classes = 2
    if loaded.data is not None:
        shape, classes = info(loaded.data).input_shape, len(info(loaded.data).classes)
    rows = torch.empty(2, *shape, device="meta")
    for seed in range(200):
        config = loaded.draw(RandomSuggester(seed), seed)
        if seed % 4 == 0:
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


def test_ratios_of_widths_that_no_network_has_are_refused_or_end_at_a_width_that_none_has() -> None:
    for ratio in (0.0, 101.0, 1e300):
        with pytest.raises(ValueError, match="must be > 0 and <= 100, got "):
            small_space(mlp={"depth": 3, "width": 8, "taper": ratio})
    deep = small_space(mlp={"depth": 400, "width": 8, "taper": 100.0}).draw(RandomSuggester(0), seed=0)
    assert isinstance(deep.model, MLP) and deep.model.widths[:4] == (8, 800, 80_000, 8_000_000)
    assert set(deep.model.widths[5:]) == {2**31}
    with pytest.raises(DocumentError, match="must be < 2147483648") as refused:
        TrialConfig.from_dict(deep.to_dict(), "deep")
    lines = str(refused.value).splitlines()
    assert len(lines) == 11 and lines[-1] == "deep: breaks 385 more rules."


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


AVERAGED: dict[str, object] = {
    "name": {"choices": ["none", "ema"]},
    "horizon": {"low": 0.1, "high": 2.0, "log": True},
}


def test_a_horizon_is_drawn_only_for_an_average_and_looked_up_again() -> None:
    loaded, averages = small_space(average=AVERAGED), set()
    for seed in range(20):
        suggester = RandomSuggester(seed)
        config = loaded.draw(suggester, seed)
        averages.add(type(config.average))
        names = list(suggester.drawn)
        assert names[names.index("average.name") :] == (
            ["average.name", "average.horizon"] if isinstance(config.average, EMA) else ["average.name"]
        )
        assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict())), "draw") == config
        assert draws_for(loaded, config) == suggester.drawn
        assert ("weights averaged over" in config.summary()) == isinstance(config.average, EMA)
    assert averages == {NoAverage, EMA}
    assert small_space(average={"name": "ema"}).draw(RandomSuggester(0), 0).average == EMA(horizon=0.5)


def test_an_average_that_a_space_lacks_is_the_difference() -> None:
    plain, averaged = small_space(), small_space(average={"name": "ema"})
    with pytest.raises(ValueError, match=r"^average\.name: is ema, the space gives none$"):
        draws_for(plain, averaged.draw(RandomSuggester(0), 0))
    with pytest.raises(ValueError, match=r"^average\.name: is none, the space gives ema$"):
        draws_for(averaged, plain.draw(RandomSuggester(0), 0))


def test_spaces_and_configs_without_an_average_are_written_as_before_hpo_knew_it() -> None:
    exported = json.loads((FIXTURE / "best.json").read_text())
    config = TrialConfig.from_dict(exported["config"], "0.1.0")
    assert config.average == NoAverage() and config.to_dict() == exported["config"]
    stored = optuna.load_study(study_name="digits", storage=f"sqlite:///{FIXTURE / 'studies.db'}").user_attrs["space"]
    walked = documents.check(SearchSpace, stored, "0.1.0")
    identity = json.dumps(walked.identity(), sort_keys=True).encode()
    assert hashlib.sha256(identity).hexdigest() == exported["provenance"]["space_digest"]
    assert documents.dump(walked) == stored
    averaged = small_space(average=AVERAGED)
    assert documents.check(SearchSpace, documents.dump(averaged), "averaged") == averaged


@pytest.mark.parametrize(
    ("average", "error"),
    [
        ({"name": "ema", "horizon": 0}, "best.toml: config: average.horizon: must be > 0.0, got 0."),
        ({"name": "none", "horizon": 0.5}, "best.toml: config: average.horizon: is not a known key."),
        ({"name": "swa"}, "best.toml: config: average.name: must be one of 'none', 'ema', got \"swa\"."),
    ],
)
def test_a_config_with_a_wrong_average_is_refused_in_one_line(average: dict[str, object], error: str) -> None:
    content = small_space().draw(RandomSuggester(0), 0).to_dict() | {"average": average}
    with pytest.raises(DocumentError) as raised:
        TrialConfig.from_dict(content, "best.toml: config")
    assert str(raised.value).startswith(error) and "\n" not in str(raised.value)


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
