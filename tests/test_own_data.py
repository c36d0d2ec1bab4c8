"""The user's own data: tables with gaps and texts, arrays, folders of images; and what is wrong with some."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hpo import data
from hpo.config import OwnData, Split
from hpo.data import loading, user_data
from hpo.errors import DataError, HpoError, UsageError
from tests.helpers import command

Frame = pd.DataFrame


def stranger(rows: int = 400, seed: int = 0) -> Frame:
    """A table as strangers have them: gaps, texts, and one class that is rare."""
    chance = np.random.default_rng(seed)
    age = chance.normal(50, 15, rows).round(1)
    colour = chance.choice(["red", "green", "blue"], rows)
    income = np.exp(chance.normal(10, 1, rows)).round()
    sick = (age > 60) & (colour == "red") | (income < 8000)
    frame = pd.DataFrame({"age": age, "colour": colour, "income": income, "member": chance.random(rows) < 0.5})
    frame["label"] = np.where(sick, "sick", "well")
    frame.loc[chance.random(rows) < 0.1, "age"] = np.nan
    frame.loc[chance.random(rows) < 0.1, "colour"] = None
    return frame


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    stranger().to_csv(path, index=False)
    return path


def parts_of(source: OwnData) -> data.Parts:
    return data.load_parts(data.info(source), Split(0.2))


def test_a_table_becomes_numbers(table: Path) -> None:
    source = OwnData(csv=str(table), target="label")
    info, parts = data.info(source), parts_of(source)
    assert info.classes == ("sick", "well") and info.rows == (320, 80) and info.name == "people"
    # age, three colours and the missing one, income, member.
    assert info.input_shape == (7,) and parts.train.x.shape == (256, 7) and np.isfinite(parts.train.x).all()
    test = data.load_test(info, parts.encoding)
    assert test.x.shape == (80, 7)
    counts = np.bincount(parts.validation.y) / len(parts.validation.y)
    np.testing.assert_allclose(counts, np.bincount(parts.train.y) / len(parts.train.y), atol=0.02)


def test_what_fills_the_gaps_is_learned_from_training_rows_alone(table: Path) -> None:
    source = OwnData(csv=str(table), target="label")
    before = parts_of(source)
    assert before.encoding is not None
    [age] = [column for column in before.encoding.columns if column.name == "age"]
    whole = user_data.read(source).train
    train, validation = loading.split_rows(whole.y, Split(0.2), "people")
    assert age.median == np.nanmedian(whole.x.iloc[train]["age"])
    assert age.median != np.nanmedian(whole.x["age"]), "else the test would prove nothing"
    missing = np.flatnonzero(whole.x.iloc[validation]["age"].isna())
    assert len(missing) > 0 and (before.validation.x[missing, 0] == np.float32(age.median)).all()


def test_a_test_file_of_its_own(table: Path, tmp_path: Path) -> None:
    other = tmp_path / "later.csv"
    stranger(50, seed=1).to_csv(other, index=False)
    info = data.info(OwnData(csv=str(table), target="label", test=str(other)))
    assert info.rows == (400, 50)
    stranger(50, seed=1).drop(columns="age").to_csv(other, index=False)
    with pytest.raises(DataError, match=r'later\.csv: must have the columns of .*people\.csv, got none named "age"'):
        data.info(OwnData(csv=str(table), target="label", test=str(other), test_fraction=0.3))


def test_parquet_is_read_as_csv_is(table: Path, tmp_path: Path) -> None:
    pd.read_csv(table).to_parquet(tmp_path / "people.parquet")
    one, other = (parts_of(OwnData(csv=str(p), target="label")) for p in (table, tmp_path / "people.parquet"))
    np.testing.assert_array_equal(one.train.x, other.train.x)


def wrong_tables() -> dict[str, tuple[Frame | str, str]]:
    good = stranger()
    typed = good.copy()
    typed["age"] = typed["age"].astype(object)
    typed.loc[6, "age"] = "sixty"
    return {
        "no target": (good.rename(columns={"label": "lable"}), 'target: no column named "label". Did you mean lable'),
        "one class": (good.assign(label="well"), r"must have at least two classes, got 1 \(well\)"),
        "a class of one row": (
            good.assign(label=["rare", *["a", "b"] * 199, "a"]),
            'class "rare" must have at least 3 rows, got 1 row',
        ),
        "text for a number": (typed, 'column "age" must be numbers, got "sixty" in row 7'),
        "an id": (good.assign(name=[f"person {i}" for i in range(400)]), 'column "name" must be numbers or categories'),
        "a missing label": (
            good.assign(label=pd.Series([None, *["a", "b"] * 199, "a"], dtype=object)),
            "got 1 rows without it .the first is row 1",
        ),
        "nothing but a header": (good.iloc[:0], "must have rows, got only a header line"),
        "empty": ("", "got an empty file"),
        "only the target": (good[["label"]], "must have columns beside the target, got none"),
    }


@pytest.mark.parametrize("case", wrong_tables())
def test_wrong_tables_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    content, message = wrong_tables()[case]
    path = tmp_path / "t.csv"
    if isinstance(content, str):
        path.write_text(content)
    else:
        content.to_csv(path, index=False)
    with pytest.raises(DataError, match=message) as error:
        data.info(OwnData(csv=str(path), target="label"))
    assert "\n" not in str(error.value) and "t.csv" in str(error.value)


def test_a_column_can_be_ignored(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    stranger().assign(name=[f"person {i}" for i in range(400)]).to_csv(path, index=False)
    assert data.info(OwnData(csv=str(path), target="label", ignore=("name",))).input_shape == (7,)
    with pytest.raises(DataError, match='ignore: no column named "nam"'):
        data.info(OwnData(csv=str(path), target="label", ignore=("nam",)))


def arrays(**changes: Any) -> dict[str, Any]:
    chance = np.random.default_rng(0)
    y = np.arange(90) % 3
    return {"x": (y[:, None, None] * 60 + chance.integers(0, 40, (90, 8, 8))).astype(np.uint8), "y": y} | changes


@pytest.mark.parametrize(
    ("changes", "shape", "scale"),
    [
        ({}, (1, 8, 8), 255.0),
        ({"x": np.zeros((90, 8, 8, 3), np.uint8)}, (3, 8, 8), 255.0),
        ({"x": np.zeros((90, 3, 8, 8), np.float32)}, (3, 8, 8), 1.0),
        ({"x": np.zeros((90, 5))}, (5,), 1.0),
    ],
)
def test_arrays_are_rows_or_images(
    changes: dict[str, Any], shape: tuple[int, ...], scale: float, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", **arrays(**changes))
    info = data.info(OwnData(npz=str(tmp_path / "a.npz")))
    assert info.input_shape == shape and info.scale == scale and info.rows == (72, 18)
    assert parts_of(OwnData(npz=str(tmp_path / "a.npz"))).train.x.shape[1:] == shape


def test_arrays_with_a_test_part_and_a_shape(tmp_path: Path) -> None:
    whole = arrays()
    np.savez(
        tmp_path / "a.npz",
        train_x=whole["x"].reshape(90, 64),
        train_y=whole["y"],
        test_x=whole["x"][:9].reshape(9, 64),
        test_y=whole["y"][:9],
    )
    source = OwnData(npz=str(tmp_path / "a.npz"), shape=(1, 8, 8))
    assert data.info(source).rows == (90, 9) and data.info(source).input_shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.arange(80) % 3}, "must have one label per row, got 90 rows"),
        ({"y": (np.arange(90) % 3) * 2}, "labels must be 0..2 without gaps, got 0, 2, 4"),
        ({"y": np.zeros(90, int)}, "must have at least two classes"),
        ({"y": np.zeros(90)}, "labels must be whole numbers, got float64"),
        ({"x": np.full((90, 4), np.nan)}, "must hold finite numbers"),
        ({"x": np.array(["a"] * 90)}, "must hold numbers, got <U1"),
        ({"x": np.array([{}] * 90, dtype=object)}, "cannot be read as npz without pickle"),
        ({"x": np.zeros((0, 4)), "y": np.zeros(0, int)}, "must have rows, got none"),
    ],
)
def test_wrong_arrays_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays(**changes))
    with pytest.raises(DataError, match=message):
        data.info(OwnData(npz=str(tmp_path / "a.npz")))


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Pictures of different sizes and modes: reddish and bluish ones."""
    chance = np.random.default_rng(0)
    root = tmp_path / "pictures"
    for name, tint in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
        (root / name).mkdir(parents=True)
        for i in range(40):
            width, height = chance.integers(20, 90, 2)
            pixels = np.clip(chance.normal(tint, 40, (height, width, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.{'png' if i % 2 else 'jpg'}")
    return root


def test_a_folder_of_photographs_becomes_one_array(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "cache"))
    source = OwnData(image_folder=str(photographs), size=16)
    info = data.info(source)
    assert info.classes == ("blue", "red") and info.input_shape == (3, 16, 16) and info.rows == (64, 16)
    assert parts_of(source).train.x.dtype == np.uint8
    assert len(list((tmp_path / "cache" / "own").glob("*.npz"))) == 1
    assert data.info(OwnData(image_folder=str(photographs), size=16, grey=True)).input_shape == (1, 16, 16)


def test_a_picture_that_cannot_be_decoded_is_named(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "cache"))
    (photographs / "red" / "broken.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"broken.png: cannot be decoded as an image .*skip_broken = true"):
        data.info(OwnData(image_folder=str(photographs), size=8))
    assert data.info(OwnData(image_folder=str(photographs), size=8, skip_broken=True)).rows == (64, 16)
    with pytest.raises(DataError, match="got no image in any folder"):
        data.info(OwnData(image_folder=str(tmp_path / "cache")))


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none.csv: no such file or folder"):
        data.info(OwnData(csv=str(tmp_path / "none.csv"), target="y"))
    with pytest.raises(ValueError, match="exactly one of csv, npz and image_folder is required, got none"):
        OwnData()
    with pytest.raises(ValueError, match="target is required with csv"):
        OwnData(csv="x.csv")
    with pytest.raises(HpoError, match="data: is required by this space"):
        data.info(None)


def hpo(*arguments: str, folder: Path, code: int = 0) -> command.Ended:
    environment = {**os.environ, "HPO_STORAGE": f"sqlite:///{folder}/studies.db", "HPO_DATA": str(folder / "cache")}
    return command.hpo(*arguments, folder=folder, environment=environment, code=code)


@pytest.mark.slow
def test_a_strangers_table_goes_from_run_to_predict(table: Path, tmp_path: Path) -> None:
    run = ["run", "--space", "ann_tabular", "--trials", "4", "--workers", "1", "--device", "cpu"]
    assert "--data" in hpo(*run, folder=tmp_path, code=2).stderr
    assert "--label: is required with people.csv" in hpo(*run, "--data", "people.csv", folder=tmp_path, code=2).stderr
    wrong = hpo(*run, "--data", "people.csv", "--label", "lable", folder=tmp_path, code=1).stderr
    assert 'no column named "lable". Did you mean label?' in wrong and not (tmp_path / "studies.db").exists()
    balanced = ("--objective", "balanced_accuracy")
    typo = hpo(*run, "--objective", "balanced_acuracy", folder=tmp_path, code=2).stderr
    assert 'no metric named "balanced_acuracy". Did you mean balanced_accuracy?' in typo
    made = hpo(*run, "--data", "people.csv", "--label", "label", *balanced, folder=tmp_path)
    assert "people: 320 training rows, 2 classes: well " in made.stderr and "balanced accuracy" in made.stdout
    hpo(*run[:3], "--trials", "5", folder=tmp_path)  # the study knows its data
    other = hpo(*run[:3], "--objective", "accuracy", folder=tmp_path, code=1).stderr
    assert 'recipe.objective: "balanced_accuracy" in the study, "accuracy" now' in other
    hpo("export", "ann_tabular", "-o", "best.toml", folder=tmp_path)
    trained = hpo("train", "best.toml", "-o", "best", "--json", folder=tmp_path)
    assert json.loads(trained.stdout)["test_accuracy"] > 0.7
    stranger(10, seed=5).drop(columns="label").to_csv(tmp_path / "new.csv", index=False)
    said = json.loads(hpo("predict", "best", "new.csv", "--json", folder=tmp_path).stdout)
    assert len(said) == 10 and {row["label"] for row in said} <= {"sick", "well"}
    table.write_text(table.read_text().replace("red", "pink"))
    assert (
        "must have fingerprint" in hpo("run", "--study", "ann_tabular", "--trials", "6", folder=tmp_path, code=1).stderr
    )


@pytest.mark.slow
def test_a_folder_of_photographs_goes_from_run_to_predict(photographs: Path, tmp_path: Path) -> None:
    run = ["run", "--space", "cnn_images", "--recipe", "smoke", "--workers", "1", "--device", "cpu"]
    hpo(*run, "--data", "pictures", folder=tmp_path)
    hpo("export", "cnn_images", "-o", "best.toml", folder=tmp_path)
    hpo("train", "best.toml", "-o", "best", "--epochs", "3", folder=tmp_path)
    picture = str(next((photographs / "red").glob("*.png")))
    said = json.loads(hpo("predict", "best", picture, "--json", folder=tmp_path).stdout)
    assert said[0]["label"] in ("red", "blue")
