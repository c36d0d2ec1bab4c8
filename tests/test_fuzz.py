"""Readers of files, fed with changed files: each gives a value, or an error of hpo's in printable lines.

50 examples of each reader, the same ones in each run; `HPO_FUZZ=10000 pytest tests/test_fuzz.py` tries so many others.
"""

import copy
import dataclasses
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import tomlkit
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import hpo
from hpo import data, documents
from hpo.config import OwnData, TrialConfig
from hpo.data import decoding
from hpo.errors import HpoError
from hpo.recipe import load_recipe
from hpo.results.export import FORMATS, Export, read_config
from hpo.results.model_card import model_card
from hpo.results.provenance import describe
from hpo.space import load_space
from hpo.suggesters import RandomSuggester
from hpo.training import checkpoints
from hpo.training.engine import Checkpoint, EpochResult
from tests.helpers.retraining import MLP_CONFIG
from tests.test_hostile_files import write_model

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("HPO_FUZZ", "50"))
fuzzed = settings(
    max_examples=EXAMPLES,
    derandomize="HPO_FUZZ" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

ODD_TEXTS = st.sampled_from(
    ["", "\0", "\x1b]0;x\x07", "\ud800", "[/x]", "$\\frac{", "../../x", "http://x/y", "nan", "é" * 300]
)
NUMBERS = st.one_of(
    st.integers(-5, 5),
    st.sampled_from([2**31, 2**53 + 1, 2**63, 2**64, 10**30, -(10**30), 1e300, 1e-320, -0.0, 0.5]),
    st.floats(),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, ODD_TEXTS, st.text(max_size=5))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=4,
)
CHOICES = st.integers(0, 10**6)
"""Chooses a place: the rest of its division by the number of places."""
CHANGES = st.lists(st.tuples(CHOICES, st.one_of(VALUES, st.just(...))), min_size=1, max_size=2)
"""Changes of a document: a place, and its new value; ... removes it."""
EDITS = st.lists(
    st.tuples(st.sampled_from(["set", "cut", "insert", "drop", "repeat"]), CHOICES, st.binary(min_size=1, max_size=6)),
    min_size=1,
    max_size=4,
)
"""Changes of bytes."""


def edited(content: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    """Return a file's content with parts set, cut off, inserted, dropped or repeated."""
    for kind, place, piece in edits:
        at = place % (len(content) + 1)
        end = at + len(piece)
        match kind:
            case "set":
                content = content[:at] + piece + content[end:]
            case "cut":
                content = content[:at]
            case "insert":
                content = content[:at] + piece + content[at:]
            case "drop":
                content = content[:at] + content[end:]
            case "repeat":
                content = content[:end] + content[at:]
    return content


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value in a document."""
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(content: dict[str, Any], changes: list[tuple[int, Any]]) -> dict[str, Any]:
    """Return a document with values replaced or removed."""
    content = json.loads(json.dumps(content))
    for choice, value in changes:
        listed = list(places(content))
        if not listed:
            break
        *parents, last = listed[choice % len(listed)]
        table: Any = content
        for parent in parents:
            table = table[parent]
        if value is ...:
            del table[last]
        else:
            table[last] = copy.deepcopy(value)  # a later change may go into it
    return content


def tried(call: Callable[[], object]) -> None:
    """Call; whatever is wrong must be an error of hpo's, in printable lines."""
    try:
        call()
    except HpoError as error:
        assert str(error) and all(line.isprintable() for line in re.split(r"[\n\t]", str(error)))


def without_null(value: Any) -> Any:
    """Return what TOML can hold of a value."""
    if isinstance(value, dict):
        return {key: without_null(entry) for key, entry in value.items() if entry is not None}
    return [without_null(entry) for entry in value if entry is not None] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hpo-fuzz-") as made:
        yield Path(made)


# Images, arrays, tables


def images() -> dict[str, bytes]:
    chance, made = np.random.default_rng(0), {}
    pixels = chance.integers(0, 256, (9, 7, 3)).astype(np.uint8)
    for kind in decoding.IMAGE_FORMATS:
        content, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = 6
        options = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}
        Image.fromarray(pixels).save(content, format=kind, **options)
        made[kind] = content.getvalue()
    return made


@pytest.mark.parametrize("kind", images())
def test_images(folder: Path, kind: str) -> None:
    whole, path = images()[kind], folder / "a.png"

    @fuzzed
    @given(EDITS, st.booleans())
    def run(edits: list[tuple[str, int, bytes]], grey: bool) -> None:
        path.write_bytes(edited(whole, edits))
        tried(lambda: decoding.pixels(decoding.open_image(path, grey=grey)))

    run()


def packed(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["table", "images"])
def test_arrays(folder: Path, kind: str) -> None:
    x = np.arange(36, dtype=np.float32).reshape(12, 3) if kind == "table" else np.zeros((12, 3, 2, 2), np.uint8)
    whole, path = packed(x=x, y=np.arange(12) % 2, classes=np.array(["a", "b"])), folder / f"{kind}.npz"

    @fuzzed
    @given(EDITS)
    def run(edits: list[tuple[str, int, bytes]]) -> None:
        path.write_bytes(edited(whole, edits))
        tried(lambda: data.info(OwnData(npz=str(path))))

    run()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables(folder: Path, suffix: str) -> None:
    table = pd.DataFrame(
        {"a": [*range(11), None], "b": ["x", "y", None] * 4, "c": [True, False] * 6, "label": ["p", "q"] * 6}
    )
    path = folder / f"a.{suffix}"
    if suffix == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    whole = path.read_bytes()

    @fuzzed
    @given(EDITS)
    def run(edits: list[tuple[str, int, bytes]]) -> None:
        path.write_bytes(edited(whole, edits))

        def read() -> None:
            info = data.info(OwnData(csv=str(path), target="label"))
            data.load_parts(info, MLP_CONFIG.split)

        tried(read)

    run()


# Documents


def test_bytes_of_documents(folder: Path) -> None:
    contents = {
        "json": json.dumps({"config": MLP_CONFIG.to_dict()}),
        "yaml": yaml.safe_dump({"config": MLP_CONFIG.to_dict()}),
        "toml": tomlkit.dumps({"config": without_null(MLP_CONFIG.to_dict())}),
    }

    @fuzzed
    @given(st.sampled_from(sorted(contents)), EDITS)
    def run(suffix: str, edits: list[tuple[str, int, bytes]]) -> None:
        path = folder / f"a.{suffix}"
        path.write_bytes(edited(contents[suffix].encode(), edits))
        tried(lambda: read_config(path))

    run()


PROVENANCE = {
    "study": "s",
    "trial": 3,
    "confirmed": True,
    "verdict": "better",
    "better_than_baseline": True,
    "fresh_mean": 0.5,
    "promised_test_score": [0.1, 0.9],
    "promised_mean_test_score": [0.2, 0.8],
    "data_fingerprint": "f" * 64,
    "searched_at": {"data_fraction": 0.5},
}


def test_values_of_exports(folder: Path) -> None:
    info, path = data.info("digits"), folder / "best.json"
    metrics = {
        "parameters": 1,
        "trained_on_rows": 1,
        "device": "cpu",
        "precision": "fp32",
        "test_accuracy": 0.5,
        "test_accuracy_interval": [0.4, 0.6],
        "test_rows": 9,
        "classes": [],
    }

    @fuzzed
    @given(CHANGES)
    def run(changes: list[tuple[int, Any]]) -> None:
        content = changed({"config": MLP_CONFIG.to_dict(), "provenance": PROVENANCE}, changes)
        path.write_text(json.dumps(content))

        def read() -> None:
            config, provenance = read_config(path)
            export = Export(config, provenance, describe(provenance))
            for text in (*(write(export) for write in FORMATS.values()), config.summary()):
                text.encode()
            model_card(export, info, metrics).encode()
            assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict())), "x") == config

        tried(read)

    run()


def test_values_of_spaces_and_recipes(folder: Path) -> None:
    names = ["ann_digits", "cnn_fashion", "ann_tabular"]
    contents = [documents.find("space", name).content for name in names if name in documents.known("space")]
    recipes = [documents.find("recipe", name).content for name in documents.known("recipe")]
    path = folder / "a.toml"

    @fuzzed
    @given(CHOICES, CHANGES)
    def run(choice: int, changes: list[tuple[int, Any]]) -> None:
        for kind, known in (("space", contents), ("recipe", recipes)):
            content = changed(known[choice % len(known)], changes)
            try:
                path.write_text(tomlkit.dumps(without_null(content)))
            except (ValueError, TypeError):  # what TOML cannot hold
                continue

            def read(kind: str = kind) -> None:
                if kind == "recipe":
                    load_recipe(str(path))
                    return
                space = load_space(str(path))
                config = space.draw(RandomSuggester(choice), seed=0)
                assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict())), "x") == config

            tried(read)

    run()


# Model folders


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    table = folder / "rows.csv"
    lines = [f"{i},{'red' if i % 3 else 'blue'},{'low' if i < 30 else 'high'}" for i in range(60)]
    table.write_text("\n".join(["size,colour,label", *lines]))
    config = dataclasses.replace(MLP_CONFIG, data=OwnData(csv=str(table), target="label"), epochs=1)
    return write_model(folder / "model", config)


def test_values_of_model_folders(folder: Path, model: Path) -> None:
    copied = Path(shutil.copytree(model, folder / "values"))
    whole = tomlkit.parse((model / "config.toml").read_text()).unwrap()

    @fuzzed
    @given(CHANGES)
    def run(changes: list[tuple[int, Any]]) -> None:
        try:
            (copied / "config.toml").write_text(tomlkit.dumps(without_null(changed(whole, changes))))
        except (ValueError, TypeError):
            return
        tried(lambda: hpo.load(copied).predict(folder / "rows.csv"))

    run()


def test_bytes_of_model_folders(folder: Path, model: Path) -> None:
    copied = Path(shutil.copytree(model, folder / "bytes"))
    names = ["model.safetensors", "config.toml", "metrics.json"]

    @fuzzed
    @given(st.sampled_from(names), EDITS)
    def run(name: str, edits: list[tuple[str, int, bytes]]) -> None:
        (copied / name).write_bytes(edited((model / name).read_bytes(), edits))
        try:
            tried(lambda: hpo.load(copied).predict(folder / "rows.csv"))
        finally:
            shutil.copy(model / name, copied / name)

    run()


# Checkpoints


def test_checkpoints(folder: Path) -> None:
    result = EpochResult(1, 0.5, 0.5, 0.5, 1.0, 0.5, 1.0, 0.1)
    whole = checkpoints.to_bytes(Checkpoint(MLP_CONFIG, {"model.a": np.zeros((2, 3), np.float32)}, (result,), "fp32"))
    texts = {"config": MLP_CONFIG.to_dict(), "history": [dataclasses.asdict(result)], "precision": "fp32"}

    @fuzzed
    @given(EDITS, CHANGES)
    def run(edits: list[tuple[str, int, bytes]], changes: list[tuple[int, Any]]) -> None:
        tried(lambda: checkpoints.from_bytes(edited(whole, edits), "a"))
        metadata = {key: json.dumps(value) for key, value in changed(texts, changes).items()}
        content = safetensors.numpy.save({"model.a": np.zeros(2)}, metadata=metadata)
        tried(lambda: checkpoints.from_bytes(content, "a"))

    run()
