"""Training and prediction read the same file as the same numbers, bit for bit."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import hpo
from hpo import data
from hpo.config import CNN, MLP, Adam, OwnData, Split, TrialConfig
from hpo.data import InputFormat, decode_file, decode_rows, user_data
from hpo.data.images import read_folder
from hpo.errors import DataError, HpoError, UsageError
from hpo.results import model_folder, retrain, test_evaluation
from hpo.results.export import Export
from hpo.results.predict import predict

FIXTURE = Path(__file__).parent / "fixtures" / "v0.1.0" / "model"
Rows = NDArray[Any]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "cache"))


def training_rows(source: OwnData) -> tuple[Rows, InputFormat]:
    """Return all training rows as the engines get them, in the file's order, and the format that a model keeps.

    The format goes through what a model folder stores of it.
    """
    info = data.info(source)
    parts = data.load_parts(info, Split(0.25))
    rows = user_data.read(source).train.x
    x = rows if parts.encoding is None else parts.encoding.apply(rows)
    kept = InputFormat.of(info, parts.encoding)
    content = {"kind": kept.kind, "shape": list(kept.shape), "scale": kept.scale, **kept.to_dict()}
    if parts.encoding is not None:
        content["columns"] = parts.encoding.to_list()
    restored = InputFormat.from_dict(json.loads(json.dumps(content)), None)
    assert restored == kept
    return np.asarray(x, dtype=np.float32), restored


def assert_same(read: Rows, predicted: Rows) -> None:
    assert predicted.dtype == np.float32 and predicted.shape == read.shape
    assert predicted.tobytes() == read.tobytes()


def uneven(shape: tuple[int, ...], kind: type = np.uint8) -> Rows:
    chance = np.random.default_rng(0)
    return chance.integers(0, 256, shape).astype(np.uint8) if kind is np.uint8 else chance.normal(size=shape)


@pytest.mark.parametrize("kind", [np.uint8, np.float64])
@pytest.mark.parametrize(
    ("shape", "given"),
    [
        ((40, 5, 7, 3), None),  # NHWC
        ((40, 3, 5, 7), None),  # NCHW
        ((40, 5, 7), None),  # NHW
        ((40, 1, 5, 7), None),
        ((40, 5, 7, 1), None),
        ((40, 9), None),
        ((40, 105), (3, 5, 7)),  # flat, reshaped on request
        ((40, 3, 35), (3, 5, 7)),
        ((40, 5, 7, 3), (3, 5, 7)),
    ],
)
def test_arrays(shape: tuple[int, ...], given: tuple[int, ...] | None, kind: type, tmp_path: Path) -> None:
    x, y = uneven(shape, kind), np.arange(40) % 2
    np.savez(tmp_path / "a.npz", x=x, y=y, x_test=x[:8], y_test=y[:8])
    read, inputs = training_rows(OwnData(npz=str(tmp_path / "a.npz"), shape=given))
    assert_same(read, decode_file(tmp_path / "a.npz", inputs))
    assert_same(read, decode_rows(x, inputs))
    assert_same(read, decode_rows(torch.from_numpy(x), inputs))
    if len(shape) == 4 and shape[3] == 3:
        np.testing.assert_array_equal(read[:, 1], x[..., 1].astype(np.float32), "the channels are kept apart")


def picture(root: Path, name: str, i: int, suffix: str, grey: bool) -> Path:
    """Write a picture that is not square, of one class; every third one has an EXIF orientation."""
    path = root / name / f"{i}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(i).integers(0, 256, (20 + i, 33) if grey else (20 + i, 33, 3)).astype(np.uint8)
    exif = Image.Exif()
    if i % 3 == 0 and suffix in (".png", ".jpg"):
        exif[0x0112] = 6  # to be rotated by 90 degrees
    Image.fromarray(pixels).save(path, exif=exif) if len(exif) else Image.fromarray(pixels).save(path)
    return path


SUFFIXES = (".png", ".jpg", ".gif", ".webp", ".tif", ".bmp")
BOTH = [(suffix, grey_files) for suffix in SUFFIXES for grey_files in (True, False)]


@pytest.mark.parametrize("grey", [True, False])
@pytest.mark.parametrize(("suffix", "grey_files"), [*BOTH, (".pgm", True), (".ppm", False)])
def test_image_folders(suffix: str, grey: bool, grey_files: bool, tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    paths = {name: [picture(root, name, i, suffix, grey_files) for i in range(8)] for name in ("a", "b")}
    source = OwnData(image_folder=str(root), size=12, grey=grey)
    x, names, _ = read_folder(root, 12, grey=grey, skip_broken=False)
    _, inputs = training_rows(source)
    assert inputs.shape == ((1 if grey else 3), 12, 12)
    in_order = [path for name in ("a", "b") for path in sorted(paths[name])]
    assert names == ["a"] * 8 + ["b"] * 8
    assert_same(x.astype(np.float32), np.concatenate([decode_file(path, inputs) for path in in_order]))
    assert_same(x.astype(np.float32), decode_rows([str(path) for path in in_order], inputs))
    assert len(np.unique(x)) > 50, "pictures of one colour would prove nothing"


def mixed_table(rows: int = 80) -> pd.DataFrame:
    """Numbers and texts with gaps, truth values, and categories that may look like numbers in a part of the rows."""
    chance = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "age": chance.normal(50, 15, rows),
            "colour": chance.choice(["red", "green", "blue"], rows),
            "code": chance.choice(["1", "02", "x7", "y", "z"], rows),
            "income": np.exp(chance.normal(10, 1, rows)),
            "member": chance.random(rows) < 0.5,
            "children": chance.integers(0, 5, rows),
            "label": np.where(np.arange(rows) % 2 == 0, "even", "odd"),
        }
    )
    for column in ("age", "colour", "code"):
        frame.loc[chance.random(rows) < 0.15, column] = None
    return frame


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path, index=False)


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    frame.to_parquet(path)


WRITERS = [(".csv", write_csv), (".parquet", write_parquet)]


@pytest.mark.parametrize(("suffix", "write"), WRITERS)
def test_tables(suffix: str, write: Callable[[pd.DataFrame, Path], None], tmp_path: Path) -> None:
    frame, path, again = mixed_table(), tmp_path / f"people{suffix}", tmp_path / f"again{suffix}"
    write(frame, path)
    source = OwnData(csv=str(path), target="label", test=str(path))
    read, inputs = training_rows(source)
    assert read.shape == (80, 14) and np.isfinite(read).all()
    assert_same(read, decode_file(path, inputs))
    # Without the label, in another order, and for parts of the rows, whose columns may look of another kind.
    features = frame.drop(columns="label")[["income", "code", "member", "age", "children", "colour"]]
    parts = {
        "all": np.arange(80),
        "codes that look like numbers": np.flatnonzero(frame["code"].isin(["1", "02"])),
        "codes missing": np.flatnonzero(frame["code"].isna() | (frame["code"] == "1")),
        "ages missing": np.flatnonzero(frame["age"].isna()),
        "one": np.array([3]),
    }
    for name, rows in parts.items():
        assert len(rows), name
        write(features.iloc[rows], again)
        assert_same(read[rows], decode_file(again, inputs))
        assert_same(read[rows], decode_rows(features.iloc[rows], inputs))
    ones = features[(frame["code"] == "1") | frame["code"].isna()]
    as_floats = ones.assign(code=ones["code"].astype(float))  # as pandas reads them where no other code occurs
    assert_same(read[ones.index], decode_rows(as_floats, inputs))


def test_the_encoding_gives_the_numbers_of_version_0_1_0() -> None:
    """Written out by hand: the median where a number is missing or infinite, one column per category, in order."""
    frame = pd.DataFrame(
        {"a": [1.0, np.nan, 4.0, np.inf], "b": ["y", None, "x", "y"], "c__d": [True, False, True, True]}
    )
    encoding = data.Encoding.fit(frame.iloc[:3], frame)
    assert encoding.to_list() == [
        {"name": "a", "median": 2.5},
        {"name": "b", "categories": ["(missing)", "x", "y"]},
        {"name": "c__d", "median": 1.0},
    ]
    expected = [[1, 0, 0, 1, 1], [2.5, 1, 0, 0, 0], [4, 0, 1, 0, 1], [2.5, 0, 0, 1, 1]]
    np.testing.assert_array_equal(encoding.apply(frame), np.array(expected, dtype=np.float32))
    twice = pd.concat([frame, frame[["b"]]], axis=1)
    with pytest.raises(DataError, match='must have one column "b", got 2'):
        encoding.apply(twice)
    unknown = frame.assign(b="never seen")
    np.testing.assert_array_equal(encoding.apply(unknown)[:, 1:4], np.zeros((4, 3)))
    empty = pd.DataFrame({"a": [np.nan, np.nan]})
    assert data.Encoding.fit(empty, empty).columns[0].median == 0.0


def test_arrays_with_names_of_classes_and_columns(tmp_path: Path) -> None:
    x, y = uneven((40, 4), np.float64), np.arange(40) % 2
    classes, columns = np.array(["no", "yes"]), np.array(["a", "b", "c", "d"])
    np.savez(tmp_path / "a.npz", x=x, y=y, classes=classes, columns=columns)
    info = data.info(OwnData(npz=str(tmp_path / "a.npz")))
    assert info.classes == ("no", "yes") and info.columns == ("a", "b", "c", "d")
    inputs = InputFormat.of(info)
    shuffled = pd.DataFrame(x, columns=list("abcd"))[["d", "b", "a", "c"]].assign(label=1)
    assert_same(x.astype(np.float32), decode_rows(shuffled, inputs))
    assert_same(x.astype(np.float32), decode_rows(x.tolist(), inputs))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"classes": np.array(["no"])}, "classes: must name every label, got 1 names and label 1"),
        ({"classes": np.array(["no", "no"])}, 'classes: must differ from each other, got "no" 2 times'),
        ({"classes": np.array([1, 2])}, "classes: must be one text each, got int64"),
        ({"classes": np.array(["a", "b", "c"])}, 'class "c" must have at least 3 rows, got 0 rows'),
        ({"columns": np.array(["a", "b"])}, r"columns: must name the numbers of a row, got 2 for \[4\]"),
        ({"y": y - 1}, "labels must not be negative, got -1"),
    ]
    for change, message in wrong:
        np.savez(tmp_path / "b.npz", **{"x": x, "y": y, **change})
        with pytest.raises(DataError, match=message):
            data.info(OwnData(npz=str(tmp_path / "b.npz")))


TABLE = InputFormat("table", (3,))
IMAGES = InputFormat("images", (3, 4, 5), 255.0)


@pytest.mark.parametrize(
    ("x", "inputs", "message"),
    [
        (np.array([[1.0, np.nan, 2.0]]), TABLE, "X: must hold finite numbers"),
        ([[1, 2], [3]], TABLE, "got rows of different lengths"),
        ([["a", "b", "c"]], TABLE, "must hold numbers, got <U1"),
        ([[None, {}, 1]], TABLE, "must hold numbers"),
        (np.zeros((2, 4)), TABLE, r"must have the shape N x 3, got 2 x 4"),
        (np.zeros((2, 4, 5)), IMAGES, r"must have the shape N x 3 x 4 x 5, got 2 x 4 x 5"),
        (np.zeros((2, 5, 4, 3)), IMAGES, r"must have the shape N x 3 x 4 x 5, got 2 x 5 x 4 x 3"),
        (np.full((2, 3, 4, 5), np.inf), IMAGES, "must hold finite numbers"),
        (pd.DataFrame({"a": ["x"]}), TABLE, "must be a table of numbers"),
        (np.zeros((2, 3), complex), TABLE, "must hold numbers, got complex128"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(x: Any, inputs: InputFormat, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        decode_rows(x, inputs)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_decoded_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    np.savez(tmp_path / "whole.npz", x=np.zeros((100, 3)))
    (tmp_path / "half.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:1000])
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("a,b,c\n")
    for name, kind, message in (
        ("a.txt", UsageError, "must be an image .*got .txt"),
        ("none.png", UsageError, "none.png: no such file"),
        ("single.npz", DataError, "cannot be read as npz"),
        ("half.npz", DataError, "cannot be read as npz"),
        ("empty.csv", DataError, "got an empty file"),
        ("header.csv", DataError, "must have rows, got none"),
    ):
        with pytest.raises(kind, match=message):
            decode_file(tmp_path / name, TABLE)
    with pytest.raises(DataError, match=r"takes rows of 3 numbers, got an image"):
        Image.new("RGB", (4, 4)).save(tmp_path / "i.png")
        decode_file(tmp_path / "i.png", TABLE)


def trained(config: TrialConfig, folder: Path) -> model_folder.Classifier:
    run = retrain.retrain(config, retrain.load_data(config, None), torch.device("cpu"), folder)
    kept, metrics = test_evaluation.evaluate_on_test([run], None)
    model_folder.write_model_folder(folder, Export(config, {}, "of a test"), kept, metrics)
    return hpo.load(folder)


def stripes(rows: int, upright: bool, seed: int) -> Rows:
    """Return a picture [24, 36, 3] of stripes whose classes differ by nothing but their direction."""
    chance = np.random.default_rng(seed)
    wave = np.sin(np.arange(36 if upright else 24) * 0.9 + chance.random() * 6) * 100 + 128
    grey = np.broadcast_to(wave if upright else wave[:, None], (24, 36))
    return np.clip(grey[..., None] + chance.normal(0, 10, (24, 36, 3)), 0, 255).astype(np.uint8)


def test_classes_that_differ_by_orientation_alone(tmp_path: Path) -> None:
    """Half of the files are stored on their side, with an EXIF orientation: training and prediction turn them."""
    root, again = tmp_path / "stripes", tmp_path / "new"
    for folder, seeds in ((root, range(60)), (again, range(100, 120))):
        for name, upright in (("across", False), ("upright", True)):
            (folder / name).mkdir(parents=True)
            for seed in seeds:
                pixels = stripes(24, upright, seed)
                exif = Image.Exif()
                if seed % 2:
                    exif[0x0112] = 6  # shown after a turn to the right: stored after one to the left
                    pixels = np.ascontiguousarray(np.rot90(pixels))
                Image.fromarray(pixels).save(folder / name / f"{seed}.png", exif=exif)
    config = TrialConfig(
        data=OwnData(image_folder=str(root), size=16),
        model=CNN(channels=(8,), dropout=(0.0,)),
        optimizer=Adam(lr=0.01),
        batch_size=16,
        epochs=6,
        seed=1,
    )
    model = trained(config, tmp_path / "model")
    paths = sorted(again.rglob("*.png"))
    labels = [path.parent.name for path in paths]
    assert model.predict(paths).tolist() == labels
    assert [p.label for p in predict(model, paths)] == labels, "no --resize is needed: training scaled them itself"
    # Arrays by the same network: channels last or first, as training's rows.
    x, names, _ = read_folder(again, 16, grey=False, skip_broken=False)
    assert model.predict(x).tolist() == model.predict(x.transpose(0, 2, 3, 1)).tolist() == names
    probabilities = model.predict_proba(paths)
    assert probabilities.dtype == np.float64 and probabilities.shape == (40, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-12)
    with pytest.raises(DataError, match="must have the shape"):
        model.predict(np.zeros((2, 24, 36, 3)))


def test_a_table_by_every_way(tmp_path: Path) -> None:
    frame = mixed_table(200)
    frame["label"] = np.where(frame["income"] > frame["income"].median(), "rich", "poor")
    frame.to_csv(tmp_path / "people.csv", index=False)
    config = TrialConfig(
        data=OwnData(csv=str(tmp_path / "people.csv"), target="label"),
        model=MLP((16,), (0.0,)),
        optimizer=Adam(lr=0.01),
        batch_size=32,
        epochs=3,
    )
    model = trained(config, tmp_path / "model")
    expected = model.predict_proba(tmp_path / "people.csv")
    assert expected.shape == (200, 2) and model.classes == ("poor", "rich")
    np.testing.assert_array_equal(model.predict_proba(frame), expected)
    np.testing.assert_array_equal(model.predict_proba(frame.drop(columns="label")), expected)
    assert set(model.predict(frame)) <= {"poor", "rich"}
    model.train()
    np.testing.assert_array_equal(model.predict_proba(frame), expected)
    assert model.training, "the mode is as before"
    with pytest.raises(DataError, match='must have a column "income"'):
        model.predict(frame.drop(columns="income"))
    with pytest.raises(DataError, match="must be a table with the columns age, colour"):
        model.predict(np.zeros((2, 6)))
    with pytest.raises(DataError, match="must have rows, got none"):
        model.predict(frame.iloc[:0])


def test_a_table_of_numbers_takes_arrays(tmp_path: Path) -> None:
    encoding = data.Encoding.fit(*[pd.DataFrame({"a": [1.0, 2, 3], "b": [4.0, 5, 6]})] * 2)
    inputs = InputFormat("table", (2,), encoding=encoding)
    np.testing.assert_array_equal(decode_rows(np.array([[7, np.nan]]), inputs), [[7, 5]])
    with pytest.raises(DataError, match=r"must be numbers \[N, 2\], got float64 \[1, 3\]"):
        decode_rows(np.zeros((1, 3)), inputs)


def test_a_model_folder_of_0_1_0_predicts_as_before(tmp_path: Path) -> None:
    model = hpo.load(FIXTURE)
    assert model.inputs == InputFormat("images", (1, 8, 8), 16.0)
    rows = data.load_test(data.info("digits"))
    assert (model.predict(rows.x) == rows.y.astype(str)).mean() > 0.95
    np.savez(tmp_path / "flat.npz", x=rows.x.reshape(-1, 64))
    np.testing.assert_array_equal(model.predict_proba(tmp_path / "flat.npz"), model.predict_proba(rows.x))
    image = Image.fromarray((rows.x[0, 0] * 255 / 16).round().astype(np.uint8))
    image.save(tmp_path / "right.png")
    assert model.predict(tmp_path / "right.png")[0] == str(rows.y[0])
    image.resize((30, 20)).save(tmp_path / "large.png")
    with pytest.raises(HpoError, match=r"must be 8x8 pixels, got 30x20. Use --resize"):
        model.predict(tmp_path / "large.png")


def test_what_0_1_0_left_out_of_a_model_folder_follows_from_its_data() -> None:
    old = {"kind": "images", "shape": [3, 8, 8], "scale": 255.0}
    assert InputFormat.from_dict(old, OwnData(image_folder="x", size=8)).image_fit == "crop"
    assert InputFormat.from_dict(old, OwnData(npz="x.npz", shape=(3, 8, 8))).reshape
    assert InputFormat.from_dict(old, "cifar10") == InputFormat("images", (3, 8, 8), 255.0)
    with pytest.raises(ValueError, match="image_fit 'stretch'"):
        InputFormat.from_dict(old | {"image_fit": "stretch"}, None)
    assert dataclasses.asdict(InputFormat.from_dict(old, None))["reshape"] is False
