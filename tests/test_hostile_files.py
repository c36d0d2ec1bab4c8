"""Files that someone else has made: images, tables, exports, model folders. Each is read, or refused in a line."""

import csv
import dataclasses
import io
import json
import math
import os
import shutil
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import tomlkit
import torch
from PIL import Image, PngImagePlugin

import hpo
from hpo import data
from hpo.config import OwnData, TrialConfig
from hpo.data import InputFormat, decode_file, decoding
from hpo.data.images import read_folder
from hpo.errors import DataError, DocumentError, HpoError, TrainingError, UsageError
from hpo.machine import memory
from hpo.results import model_folder, predict, retrain, test_evaluation
from hpo.results.export import Export, read_config
from hpo.service import train
from hpo.space import load_space
from hpo.training import checkpoints
from hpo.training.engine import Checkpoint
from tests.helpers import command
from tests.helpers.retraining import CPU, MLP_CONFIG


def refused(call: Callable[[], object], message: str = ".", kind: type[HpoError] = HpoError) -> str:
    """Return the error of a call: one of hpo's, printable, with a line for each rule that is broken."""
    with pytest.raises(kind, match=message) as caught:
        call()
    text = str(caught.value)
    assert all(line.isprintable() for line in text.split("\n")), repr(text)
    return text


# Images


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n{} loop\n%%EOF\n"


def test_an_image_that_is_postscript_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a Ghostscript on the path, which PIL would start for an EPS file of any name."""
    from PIL import EpsImagePlugin

    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # what PIL remembers of an earlier search
    photo = tmp_path / "photo.png"
    photo.write_bytes(EPS)
    refused(lambda: decoding.open_image(photo, grey=False), "cannot be decoded as an image", DataError)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("other", ["TGA", "PCX", "SGI", "ICO", "DDS"])
def test_an_image_in_another_format_is_refused_whatever_it_is_called(tmp_path: Path, other: str) -> None:
    path = tmp_path / "photo.png"
    Image.new("RGB", (16, 16)).save(path, format=other)
    assert "cannot identify" in refused(lambda: decoding.open_image(path, grey=False))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def damaged_images() -> dict[str, bytes]:
    whole = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(whole, format="PNG")
    good = whole.getvalue()
    text = PngImagePlugin.PngInfo()
    text.add_text("a", "b" * 3_000_000, zip=True)
    bomb = io.BytesIO()
    Image.new("RGB", (16, 16)).save(bomb, format="PNG", pnginfo=text)
    return {
        "empty": b"",
        "no image": b"hello",
        "truncated": good[:-30],
        "wrong sum": good.replace(b"IDAT", b"IDAX"),
        "200,000 x 200,000 pixels": png(200_000, 200_000, chunk(b"IDAT", zlib.compress(b"\0" * 100))),
        "12,000 x 12,000 pixels": png(12_000, 12_000, chunk(b"IDAT", zlib.compress(b"\0" * 100))),
        "a text of 3 MB in 3 KB": bomb.getvalue(),
        "no pixels": png(0, 0),
        "short header": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\0\0"),
        "TIFF without end": b"II*\0\xff\xff\xff\xff",
        "GIF without frame": b"GIF89a\x10\0\x10\0\0\0\0",
        "BMP of a wrong size": b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, -5, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0),
        "JPEG of its mark alone": b"\xff\xd8\xff\xe0",
        "WebP of a wrong length": b"RIFF\xff\xff\xff\xffWEBPVP8 ",
    }


@pytest.mark.parametrize("name", damaged_images())
def test_a_damaged_image_is_named_or_skipped(tmp_path: Path, name: str) -> None:
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / kind / "good.png")
        (tmp_path / kind / "folder.png").mkdir()
    bad = tmp_path / "a" / "bad.png"
    bad.write_bytes(damaged_images()[name])
    text = refused(lambda: read_folder(tmp_path, 8, grey=False, skip_broken=False), "cannot be decoded as an image")
    assert str(bad) in text and "skip_broken = true" in text
    x, names, _ = read_folder(tmp_path, 8, grey=False, skip_broken=True)
    assert len(x) == 2 and names == ["a", "b"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HPO_DATA", str(folder))
    return folder


def test_a_damaged_cache_is_made_again(tmp_path: Path, cache: Path) -> None:
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        Image.new("RGB", (9, 9), "red").save(tmp_path / kind / "good.png")
    first = read_folder(tmp_path, 8, grey=False, skip_broken=False)
    [cached] = (cache / "own").iterdir()
    cached.write_bytes(cached.read_bytes()[:100])
    again = read_folder(tmp_path, 8, grey=False, skip_broken=False)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1:] == again[1:] and cached.stat().st_size > 100


# Arrays


def member(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


def archive(**members: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, value in members.items():
            packed.writestr(name.replace("_", ".", 1), value)
    return content.getvalue()


def header(text: str) -> bytes:
    line = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line


def damaged_arrays() -> dict[str, bytes]:
    good = archive(x_npy=member(np.zeros((9, 4))), y_npy=member(np.arange(9) % 3))
    flipped = bytearray(good)
    flipped[60] ^= 0xFF
    huge = header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 4)}")
    return {
        "empty": b"",
        "an empty archive": archive(),
        "truncated": good[: len(good) // 2],
        "a wrong sum": bytes(flipped),
        "a text": archive(x_txt=b"hello", y_npy=member(np.arange(9) % 3)),
        "a text named x": archive(x=b"hello", y=b"world"),
        "objects": archive(x_npy=member(np.array([{}] * 9)), y_npy=member(np.arange(9) % 3)),
        "a header of 32 TB": archive(x_npy=huge, y_npy=member(np.arange(9) % 3)),
        "a header that is code": archive(x_npy=header("__import__('os').system('id')"), y_npy=b""),
        "a header of nested brackets": archive(x_npy=header("(" * 100), y_npy=b""),
        "a pickle": b"\x80\x04K\x01.",
        "labels without rows": archive(x_npy=member(np.zeros((9, 4))), y_npy=member(np.array(3))),
        "a label of 2**62": archive(x_npy=member(np.zeros((9, 4))), y_npy=member(np.arange(9) + 2**62)),
        "a label of 2**63": archive(x_npy=member(np.zeros((9, 4))), y_npy=member(np.full(9, 2**63, np.uint64))),
        "labels with a gap": archive(x_npy=member(np.zeros((9, 4))), y_npy=member(np.arange(9) * 10**6)),
        "durations as labels": archive(x_npy=member(np.zeros((9, 4))), y_npy=member(np.arange(9).astype("m8[s]"))),
        "records": archive(x_npy=member(np.zeros(9, "f4,i4")), y_npy=member(np.arange(9) % 3)),
        "too large for float32": archive(x_npy=member(np.full((9, 4), 1e39)), y_npy=member(np.arange(9) % 3)),
        "no columns": archive(x_npy=member(np.zeros((9, 0))), y_npy=member(np.arange(9) % 3)),
    }


@pytest.mark.parametrize("name", damaged_arrays())
@pytest.mark.parametrize("test", [False, True])
def test_a_damaged_npz_is_refused(tmp_path: Path, name: str, test: bool) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(damaged_arrays()[name])
    good = tmp_path / "good.npz"
    good.write_bytes(archive(x_npy=member(np.zeros((9, 4))), y_npy=member(np.arange(9) % 3)))
    source = OwnData(npz=str(good), test=str(path)) if test else OwnData(npz=str(path))
    assert str(path) in refused(lambda: data.info(source), kind=DataError)


def test_an_npz_that_unpacks_to_more_than_the_memory_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(archive(x_npy=member(np.zeros((1000, 1000)))))
    assert path.stat().st_size < 20_000
    refused(lambda: decoding.read_arrays(path, limit=1_000_000), "its arrays have 0.008 GB", DataError)
    assert list(decoding.read_arrays(path)) == ["x"]
    assert memory() > 2**28


# Tables


def test_a_table_is_a_local_file(tmp_path: Path) -> None:
    """Neither pandas nor Arrow is given a name that it could take for an address."""
    table = tmp_path / "a.csv"
    table.write_text("a,label\n" + "".join(f"{i},{'xy'[i % 2]}\n" for i in range(20)))
    asked: list[object] = []
    watching = True
    sys.addaudithook(lambda event, arguments: asked.append(arguments) if watching and "socket" in event else None)
    for address in ("http://127.0.0.1:9/a.csv", "file:///etc/passwd", "s3://bucket/a.parquet", "a\0b"):
        for rows, test in ((address, None), (str(table), address)):
            with pytest.raises(ValueError, match="must be the path of a local file or folder"):
                OwnData(csv=rows, target="label", test=test)
    for name in ("http:/127.0.0.1:9/a.csv", "http:/127.0.0.1:9/a.parquet"):
        refused(partial(data.info, OwnData(csv=str(table), target="label", test=name)), kind=UsageError)
        refused(partial(decoding.read_table, Path(name)), "No such file", DataError)
    watching = False
    assert asked == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an empty file"),
        (b"\xff\xfe\0\0", "cannot be read as a table"),
        (b'a,b\n"x,y\n', "cannot be read as a table"),
        (b"a,b\n1,2\n1,2,3,4\n", "cannot be read as a table"),
        (b"PAR1" + b"\xff" * 20 + b"PAR1", "cannot be read as a table"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / ("a.parquet" if content[:3] == b"PAR" else "a.csv")
    path.write_bytes(content)
    refused(lambda: decoding.read_table(path), message, DataError)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_of_too_many_columns_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(decoding, "MOST_COLUMNS", 3)
    for names in (["a", 'b,"c', "d"], ["a", "b", "c", "d"]):
        frame, path = pd.DataFrame([[1] * len(names)], columns=names), tmp_path / f"t.{suffix}"
        frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path, index=False)
        if len(names) == 3:
            assert list(decoding.read_table(path).columns) == names
        else:
            refused(partial(decoding.read_table, path), "it has 4 columns, more than 3", DataError)


# Documents


def nested(depth: int, opening: str, closing: str) -> str:
    return opening * depth + closing * depth


DOCUMENTS = {
    "a.yaml aliases": "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nconfig: *c\n",
    "a.yaml itself": "config: &c\n  data: *c\n",
    "a.yaml merged": "x: &x {data: digits}\nconfig:\n  <<: *x\n",
    "a.yaml object": "config: !!python/object/apply:os.system [id]\n",
    "a.yaml keys": "config: {2024-01-01: 1, data: digits}\n",
    "a.yaml key of a list": "? [1]\n: 2\n",
    "a.yaml bytes": "config: {data: !!binary aGVsbG8=}\n",
    "a.yaml two": "config: {}\n---\nconfig: {}\n",
    "a.yaml deep": "config: " + nested(600, "[", "]"),
    "a.json deep": '{"config": ' + nested(100_000, "[", "]") + "}",
    "a.toml deep": "config = " + nested(2000, "[", "]"),
    "a.json half a character": '{"config": {"data": "\\ud800"}}',
    "a.json number": "5",
    "a.json config": '{"config": 5}',
    "a.json a number of 5000 digits": '{"config": {"epochs": ' + "9" * 5000 + "}}",
    "a.toml a number of 5000 digits": "config = " + "9" * 5000,
    "a.json not UTF-8": "\udcff",
    "a.toml null": "\0",
    "a.toml escape": "[\x1b]0;title\x07]",
    "a.toml escape in a key": '[config]\n"\\u001b]0;title\\u0007" = 1',
    "a.toml 11 MB": "#" * 11_000_000,
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_damaged_export_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name.partition(" ")[0]
    path.write_bytes(DOCUMENTS[name].encode("utf-8", "surrogateescape"))
    assert str(path) in refused(lambda: read_config(path), kind=DocumentError)
    space = tmp_path / "space.toml"
    path.rename(space)
    refused(lambda: load_space(str(space)))


CHANGES: list[tuple[str, object]] = [
    ("config.split.seed", -1),
    ("config.split.seed", 2**32),
    ("config.split.validation", float("inf")),
    ("config.split.validation", float("nan")),
    ("config.split.validation", 1e300),
    ("config.model.widths", [10**30]),
    ("config.model.widths", [2**31]),
    ("config.model.widths", [2**30, 2**30]),
    ("config.model.widths", [3_000_000, 3_000_000]),
    ("config.image_size", 10**30),
    ("config.image_size", 10**6),
    ("config.batch_size", 2**80),
    ("config.optimizer.lr", float("nan")),
    ("config.seed", -1),
    ("config.data", "\x1b]0;title\x07"),
    ("config.data", {"csv": "http://127.0.0.1:9/a.csv", "target": "y"}),
    ("config.data", {"npz": "missing.npz"}),
    ("config.data", 5),
    ("config.\x1b]0;", 5),
    ("config.format", [1]),
    ("provenance", 5),
    ("provenance.promised_test_score", 5),
    ("provenance.promised_mean_test_score", [0.1]),
    ("provenance.fresh_mean", "high"),
    ("provenance.promised_test_score", [0.1]),
    ("provenance.promised_test_score", ["a", "b"]),
    ("provenance.data_fingerprint", 5),
    ("provenance.data_fingerprint", "0" * 64),
    ("provenance.trial", "3"),
    ("provenance.verdict", ["x"]),
    ("provenance.confirmed", "yes"),
    ("provenance.other", [None]),
]


@pytest.mark.parametrize(("field", "value"), CHANGES, ids=[f"{field} {value!s:.30}" for field, value in CHANGES])
def test_an_export_with_a_wrong_value_is_refused_before_the_training(tmp_path: Path, field: str, value: object) -> None:
    provenance = {"study": "s", "trial": 3, "confirmed": False}
    content = {"config": MLP_CONFIG.to_dict(), "provenance": provenance}
    table: dict[str, Any] = content
    *parents, last = field.split(".")
    for parent in parents:
        table = table[parent]
    table[last] = value
    if last == "widths":
        table["dropout"] = [0.0] * len(table["widths"])
    path = tmp_path / "best.json"
    path.write_text(json.dumps(content))

    def never(update: train.EpochUpdate) -> None:
        raise AssertionError("it was trained")

    request = train.TrainRequest(source=path, output=tmp_path / "model")
    refused(lambda: train.train_model(train.plan_training(request), on_epoch=never))
    assert not (tmp_path / "model").exists()


# Model folders


def write_model(folder: Path, config: TrialConfig) -> Path:
    run = retrain.retrain(config, retrain.load_data(config, None), CPU, folder)
    kept, metrics = test_evaluation.evaluate_on_test([run], None)
    model_folder.write_model_folder(folder, Export(config, {}, "of a test"), kept, metrics)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network for a table with a number and a text."""
    table = tmp_path_factory.mktemp("table") / "a.csv"
    lines = [f"{i},{'red' if i % 3 else 'blue'},{'low' if i < 30 else 'high'}" for i in range(60)]
    table.write_text("\n".join(["size,colour,label", *lines]))
    config = dataclasses.replace(MLP_CONFIG, data=OwnData(csv=str(table), target="label"), epochs=1)
    return write_model(tmp_path_factory.mktemp("model"), config)


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


WRONG_INPUTS: list[tuple[str, object]] = [
    ("config", 5),
    ("inputs", 5),
    ("inputs", []),
    ("inputs.kind", "pictures"),
    ("inputs.shape", 3),
    ("inputs.shape", [-1]),
    ("inputs.shape", [2**62]),
    ("inputs.shape", [3, 4, 5]),
    ("inputs.scale", 0.0),
    ("inputs.scale", float("nan")),
    ("inputs.scale", "255"),
    ("inputs.mean", [[0.0], [1.0]]),
    ("inputs.mean", ["a", "b", "c"]),
    ("inputs.mean", [float("nan"), 0.0, 0.0]),
    ("inputs.mean", [0.0]),
    ("inputs.std", [0.0, 1.0, 1.0]),
    ("inputs.std", [float("inf"), 1.0, 1.0]),
    ("inputs.classes", ["one"]),
    ("inputs.classes", ["one", "one"]),
    ("inputs.classes", [1, 2]),
    ("inputs.classes", "ab"),
    ("inputs.columns", 5),
    ("inputs.columns", []),
    ("inputs.columns", [{"name": "size", "median": "x"}]),
    ("inputs.columns", [{"name": "size", "median": 1.0}, {"name": "size", "categories": ["a", "b"]}]),
    ("inputs.columns", [{"name": "size"}, {"name": "colour", "categories": ["a", "b"]}]),
    ("inputs.feature_names", 5),
    ("config.model.widths", [2**30, 2**30]),
    ("config.model.widths", [32, 17]),
]


@pytest.mark.parametrize(
    ("field", "value"), WRONG_INPUTS, ids=[f"{field} {value!s:.40}" for field, value in WRONG_INPUTS]
)
def test_a_model_folder_with_a_wrong_value_is_refused(folder: Path, field: str, value: object) -> None:
    path = folder / "config.toml"
    content = tomlkit.parse(path.read_text())
    table: Any = content
    *parents, last = field.split(".")
    for parent in parents:
        table = table[parent]
    table[last] = value
    path.write_text(tomlkit.dumps(content))
    refused(lambda: hpo.load(folder), kind=DocumentError)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 8 + b"{}", b"\x02\0\0\0\0\0\0\0{}"])
def test_damaged_weights_are_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    refused(lambda: hpo.load(folder), "model.safetensors: must be the weights of MLP 32-16", DocumentError)


@pytest.mark.parametrize("content", ["", "5", "[]", "[" * 100_000, '{"a": "\\ud800"}'])
def test_damaged_metrics_are_refused(folder: Path, content: str) -> None:
    (folder / "metrics.json").write_text(content)
    refused(lambda: hpo.load(folder), "metrics.json: ", DocumentError)


def with_weights(folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> str:
    """Change the weights of the first layer; return their name."""
    path = folder / "model.safetensors"
    weights = safetensors.torch.load(path.read_bytes())
    name = min(name for name, value in weights.items() if value.ndim == 2)
    weights[name] = change(weights[name])
    path.write_bytes(safetensors.torch.save(weights))
    return name


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(folder: Path, value: float) -> None:
    name = with_weights(folder, lambda weights: weights.index_fill(0, torch.tensor([0]), value))
    refused(lambda: hpo.load(folder), f"{name}: must be finite numbers", DocumentError)


def test_a_prediction_that_is_no_number_is_none(folder: Path, tmp_path: Path) -> None:
    """Each cause of one is named: the number in the table, and outputs of the network that overflow."""
    table = tmp_path / "new.csv"
    table.write_text("size,colour\n3,red\n1e39,blue\n")
    classifier = hpo.load(folder)
    refused(
        lambda: list(predict.predict(classifier, [table])),
        'column "size" must be numbers below 3e38, got 1e',
        DataError,
    )
    numbers = InputFormat("table", (2,))
    pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 1e39]}).to_csv(tmp_path / "numbers.csv", index=False)
    message = 'column "b" must hold finite numbers below 3e38, got 1e.39 in row 2'
    refused(lambda: decode_file(tmp_path / "numbers.csv", numbers), message, DataError)
    table.write_text("size,colour\n3,red\n-inf,blue\n,green\n")
    assert all(math.isfinite(p.probability) for p in predict.predict(classifier, [table])), "the median takes its place"
    table.write_text("size,colour\n3,red\n3e38,blue\n")
    with_weights(folder, lambda weights: torch.full_like(weights, 3e38))
    refused(lambda: list(predict.predict(hpo.load(folder), [table])), "row 1: .*outputs of the network", DataError)


def test_cells_of_csv_are_no_formulas(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    names = ["$\\frac{", "=cmd|'/c calc'!A0", "@SUM(1)", "-1", "+cmd", "\tx"]
    lines = [f'{i},"{names[i % len(names)]}"' for i in range(60)]
    table.write_text("\n".join(["size,label", *lines]))
    config = dataclasses.replace(MLP_CONFIG, data=OwnData(csv=str(table), target="label"), epochs=1)
    folder = write_model(tmp_path / "model", config)
    predicted = command.hpo("predict", str(folder), str(table), "--csv", folder=tmp_path).stdout
    rows = list(csv.reader(io.StringIO(predicted)))
    header, labels = rows[0][4:], {row[2] for row in rows[1:]}
    expected = {name if name in ("-1", names[0]) else f"'{name}" for name in names}
    assert set(header) == expected and labels <= expected and labels


@pytest.mark.parametrize("left", [b"", b"\0" * 100, "other tensors"])
def test_a_damaged_checkpoint_in_a_model_folder_is_named(tmp_path: Path, left: bytes | str) -> None:
    name = retrain.unfinished_name(MLP_CONFIG, with_validation=False)
    if isinstance(left, str):
        left = checkpoints.to_bytes(Checkpoint(MLP_CONFIG, {"model.a": np.zeros(3, np.float32)}, (), "fp32"))
    (tmp_path / name).write_bytes(left)
    parts = retrain.load_data(MLP_CONFIG, None)
    refused(lambda: retrain.retrain(MLP_CONFIG, parts, CPU, tmp_path), f"{name}: must be .* Delete it", TrainingError)
