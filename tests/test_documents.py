"""Documents: every one of ours loads; every mistake is named with file, field, rule, value and remedy."""

import copy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpo import documents, recipe, space
from hpo.errors import DocumentError, UsageError
from hpo.space import SearchSpace
from tests.helpers.documents import ROOT, SPACES

RECIPES = sorted(path.stem for path in (ROOT / "studies").glob("*.toml"))

Mutation = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize("name", SPACES)
def test_each_space_loads(name: str) -> None:
    assert space.load_space(name).title


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_loads(name: str) -> None:
    assert recipe.load_recipe(name).title


def test_a_space_survives_the_store() -> None:
    for name in SPACES:
        loaded = space.load_space(name)
        assert documents.check(SearchSpace, documents.dump(loaded), "store") == loaded


def put(*path: str, value: Any) -> Mutation:
    def change(document: dict[str, Any]) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


MISTAKES: list[tuple[Mutation, str]] = [
    (put("mlp", "width", value={"low": 512, "high": 32}), "mlp.width: low must be <= high, got low=512, high=32."),
    (put("mlp", "widht", value=3), 'mlp: unknown key "widht". Did you mean width?'),
    (put("mlp", "norm", value={"low": 1, "high": 2}), "mlp.norm: must be a value or { choices = [...] }"),
    (put("mlp", "norm", value="bath"), "mlp.norm: must be one of 'none', 'batch' or 'layer', got \"bath\"."),
    (put("mlp", "depth", value=2.5), "mlp.depth: must be an integer, got 2.5."),
    (put("mlp", "depth", value={"low": 1, "high": "5"}), 'mlp.depth.high: must be an integer, got "5".'),
    (put("mlp", "dropout", value={"low": 0.1, "high": 1.5}), "mlp.dropout: must be >= 0 and < 1, got 1.5."),
    (put("optimizer", "lr", value={"low": 0, "high": 1, "log": True}), "optimizer.lr: log needs low > 0, got low=0"),
    (put("optimizer", "lr", value="1e-3"), 'optimizer.lr: must be a number, got "1e-3".'),
    (put("optimizer", "name", value={"choices": ["sgd", "lion"]}), "optimizer.name.choices.1: must be one of 'sgd'"),
    (put("epochs", value=0), "epochs: must be >= 1, got 0."),
    (put("epochs", value={"low": 1}), "epochs.high: is required."),
    (put("batch_size", value={"choices": [32, 32]}), "batch_size.choices: choices must differ from one another"),
    (put("batch_size", value={"low": 8, "high": 30, "step": 8}), "batch_size: high - low must be a multiple of step"),
    (put("split", value={"validation": 1.5}), "split: validation must be a fraction below 1 or a whole number"),
    (
        put("cnn", value={"depth": 1, "channels": 8}),
        "exactly one of [mlp], [cnn], [model] and python is required, got ",
    ),
    (lambda d: d.pop("optimizer"), "optimizer: is required."),
    (lambda d: d["optimizer"].pop("lr"), "optimizer: lr is required for sgd."),
    (lambda d: d["baselines"][0]["params"]["mlp"].update(width=5), "baselines.0.params.mlp.width: must lie in 8..512"),
    (
        lambda d: d["baselines"][0]["params"]["mlp"].update(wdth=8),
        "baselines.0.params.mlp.wdth: is not drawn for this baseline",
    ),
    (lambda d: d["baselines"][0]["params"].pop("batch_size"), "baselines.0.params.batch_size: is required."),
    (put("average", value={"name": "ema", "horizon": 0.0}), "average.horizon: must be > 0, got 0."),
    (
        put("average", value={"name": "ema", "horizon": {"low": -1.0, "high": 2.0}}),
        "average.horizon: must be > 0, got -1.",
    ),
    (
        put("average", value={"horizon": 0.5}),
        'average: horizon is for ema only, got name = "none". Remove it, or add ema',
    ),
    (put("average", value={"name": "swa"}), "average.name: must be one of 'none' or 'ema', got \"swa\"."),
]


@pytest.mark.parametrize(("mistake", "text"), MISTAKES, ids=[text[:40] for _, text in MISTAKES])
def test_a_mistake_in_a_space_is_named(mistake: Mutation, text: str) -> None:
    content = copy.deepcopy(tomllib.loads((ROOT / "search_spaces" / "ann_fashion.toml").read_text()))
    mistake(content)
    with pytest.raises(DocumentError) as caught:
        documents.check(SearchSpace, content, "my.toml")
    assert str(caught.value).startswith(f"my.toml: {text}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"budget": {"trials": 0}}, "budget.trials: must be >= 1, got 0."),
        ({"budget": {"timeout": "soon"}}, 'budget.timeout: must be a duration as 90s, 30m or 1h30m, got "soon".'),
        ({"sampler": {"name": "bayes"}}, "sampler.name: must be one of"),
        ({"epochs": 2, "pruner": {"min_epochs": 3}}, "pruner.min_epochs must be <= epochs, got 3 and 2."),
    ],
)
def test_a_mistake_in_a_recipe_is_named(content: dict[str, Any], text: str) -> None:
    with pytest.raises(DocumentError) as caught:
        documents.check(recipe.StudyRecipe, content, "r.toml")
    assert str(caught.value).startswith(f"r.toml: {text}")


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match=r'No space named "ann_fashon". Did you mean ann_fashion\? Known: ann_'):
        documents.find("space", "ann_fashon")


def test_files_that_are_no_documents_are_named(tmp_path: Path) -> None:
    broken, binary = tmp_path / "broken.toml", tmp_path / "binary.toml"
    broken.write_text("a = = 1")
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(DocumentError, match=r"broken.toml: is not valid TOML: .*line 1"):
        documents.find("space", str(broken))
    with pytest.raises(DocumentError, match=r"binary.toml: must be UTF-8 text, got byte 0xff"):
        documents.find("space", str(binary))
    with pytest.raises(UsageError, match=r"none.toml: no such file"):
        documents.find("space", str(tmp_path / "none.toml"))


def test_the_working_directory_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search_spaces").mkdir()
    own = (ROOT / "search_spaces" / "ann_digits.toml").read_text().replace("epochs = 30", "epochs = 3")
    (tmp_path / "search_spaces" / "ann_digits.toml").write_text(own)
    assert space.load_space("ann_digits").epochs == 3
    assert space.load_space("ann_fashion").epochs == 20


def test_differences_name_field_before_and_now() -> None:
    before = documents.dump(space.load_space("ann_fashion"))
    now = copy.deepcopy(before)
    now["mlp"]["width"]["high"] = 1024
    assert documents.differences("space", before, now) == ["space.mlp.width.high: 512 in the study, 1024 now"]


@pytest.mark.parametrize(("text", "value"), [("90", 90), ("90s", 90), ("30m", 1800), ("1h30m", 5400), ("2h", 7200)])
def test_durations(text: str, value: int) -> None:
    assert recipe.seconds(text) == value


@pytest.mark.parametrize("text", ["", "0", "m", "5x", "-3", "1.5h", "30m1h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        recipe.seconds(text)
