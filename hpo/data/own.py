"""The user's own data: tables (CSV, Parquet), arrays (npz), folders of images. Checked before any trial is spent."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo import files
from hpo.config import OwnData
from hpo.data.encoding import check_columns, feature_count
from hpo.data.images import read_folder
from hpo.data.registry import DataInfo
from hpo.errors import DataError, UsageError, suggestion

MIN_ROWS = 3
"""Of a class: one to train on, one to validate on, one to test on."""


@dataclass(frozen=True)
class Rows:
    """What a source holds: x is an array [N, ...] or, of a table, a DataFrame of its features; y are class numbers."""

    x: Any
    y: NDArray[np.int64]


@dataclass(frozen=True)
class Content:
    """A source, read and checked."""

    train: Rows
    test: Rows
    classes: tuple[str, ...]
    scale: float
    digest: str


def describe(source: OwnData) -> DataInfo:
    """Return what is to be known of a source. Raises: UsageError if it is not there, DataError for what is wrong."""
    content = read(source)
    table = source.csv is not None
    shape = (feature_count(content.train.x),) if table else tuple(int(n) for n in content.train.x.shape[1:])
    return DataInfo(
        name=source.name,
        title=f"{source.path}: {len(content.train.y) + len(content.test.y):,} rows, {len(content.classes)} classes",
        kind="images" if len(shape) == 3 else "table",
        input_shape=shape,
        classes=content.classes,
        rows=(len(content.train.y), len(content.test.y)),
        scale=content.scale,
        own=source,
    )


def read(source: OwnData) -> Content:
    """Return a source's content; what has not changed is read once per process. Raises: UsageError, DataError."""
    path = Path(source.path)
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder. Give the path of your data: --data PATH.")
    state = path.stat()
    return _read(source, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _read(source: OwnData, changed: int, size: int) -> Content:
    readers: dict[str, Callable[[OwnData], Content]] = {"csv": _table, "npz": _arrays, "image_folder": _images}
    return readers[source.kind](source)


def _table(source: OwnData) -> Content:
    path = str(source.csv)
    frame, names = _frame(source, path)
    check_columns(path, frame)
    classes = tuple(sorted(set(names)))
    _check_classes(path, list(names), classes)
    y = np.array([classes.index(name) for name in names], dtype=np.int64)
    digest = _digest_of(path)
    if source.test is None:
        train, test = _cut(y, source)
        return Content(Rows(frame.iloc[train], y[train]), Rows(frame.iloc[test], y[test]), classes, 1.0, digest)
    test_frame, test_names = _frame(source, source.test)
    missing = [column for column in frame.columns if column not in test_frame.columns]
    if missing:
        raise DataError(f'{source.test}: must have the columns of {path}, got none named "{missing[0]}".')
    unknown = sorted(set(test_names) - set(classes))
    if unknown:
        raise DataError(f'{source.test}: must have the classes of {path}, got "{unknown[0]}".')
    test_y = np.array([classes.index(name) for name in test_names], dtype=np.int64)
    both = digest + _digest_of(source.test)
    return Content(Rows(frame, y), Rows(test_frame[list(frame.columns)], test_y), classes, 1.0, both)


def _frame(source: OwnData, path: str) -> tuple[Any, list[str]]:
    """Return a table's features and the names of its rows' classes."""
    import pandas as pd

    try:
        frame = pd.read_parquet(path) if path.endswith((".parquet", ".pq")) else pd.read_csv(path)
    except pd.errors.EmptyDataError:
        raise DataError(f"{path}: must be a table with a header line, got an empty file.") from None
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"{path}: cannot be read as a table: {' '.join(str(error).split())}.") from error
    columns = [str(column) for column in frame.columns]
    frame.columns = columns
    if source.target not in columns:
        raise DataError(f'{path}: target: no column named "{source.target}". {suggestion(str(source.target), columns)}')
    for column in source.ignore:
        if column not in columns:
            raise DataError(f'{path}: ignore: no column named "{column}". {suggestion(column, columns)}')
    if frame.empty:
        raise DataError(f"{path}: must have rows, got only a header line.")
    labels = frame[source.target]
    if labels.isna().any():
        first = int(np.flatnonzero(labels.isna())[0])
        raise DataError(
            f"{path}: {source.target}: must not be missing, got {int(labels.isna().sum())} rows without it "
            f"(the first is row {first + 1}). Remove them."
        )
    if pd.api.types.is_float_dtype(labels) and (labels % 1 == 0).all():
        labels = labels.astype("int64")
    frame = frame.drop(columns=[source.target, *source.ignore])
    if frame.shape[1] == 0:
        raise DataError(f"{path}: must have columns beside the target, got none.")
    return frame.reset_index(drop=True), [str(label) for label in labels]


def _arrays(source: OwnData) -> Content:
    path = str(source.npz)
    arrays = _load(path)
    x, y = _pair(path, arrays, ("x", "train_x", "x_train"), ("y", "train_y", "y_train"), source)
    test_path, test_arrays = (path, arrays) if source.test is None else (source.test, _load(source.test))
    own_file = source.test is not None
    first = 0 if own_file else 1
    named = (("x", "x_test", "test_x")[first:], ("y", "y_test", "test_y")[first:])
    scale = 255.0 if x.dtype == np.uint8 else 1.0
    classes = tuple(str(i) for i in range(int(y.max()) + 1))
    _check_classes(path, [str(label) for label in y], classes)
    if source.test is not None or any(name in arrays for name in named[0]):
        test_x, test_y = _pair(test_path, test_arrays, *named, source)
        if test_x.shape[1:] != x.shape[1:] or test_y.max() >= len(classes):
            raise DataError(f"{test_path}: test rows must be shaped and labelled as the training rows.")
        train, test = Rows(x, y), Rows(test_x, test_y)
    else:
        train_rows, test_rows = _cut(y, source)
        train, test = Rows(x[train_rows], y[train_rows]), Rows(x[test_rows], y[test_rows])
    digest = _digest_of(path) + ("" if source.test is None else _digest_of(source.test))
    return Content(train, test, classes, scale, digest)


def _load(path: str) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as npz without pickle: {error}.") from error


def _pair(
    path: str, arrays: dict[str, NDArray[Any]], xs: tuple[str, ...], ys: tuple[str, ...], source: OwnData
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    found = [next((arrays[name] for name in names if name in arrays), None) for names in (xs, ys)]
    if found[0] is None or found[1] is None:
        have = ", ".join(arrays) or "none"
        raise DataError(f'{path}: must hold arrays "{xs[0]}" and "{ys[0]}", got {have}.')
    x, y = _shaped(path, found[0], source), found[1]
    if len(x) != len(y) or y.ndim != 1:
        raise DataError(f"{path}: must have one label per row, got {len(x)} rows and labels of shape {y.shape}.")
    if len(y) == 0:
        raise DataError(f"{path}: must have rows, got none.")
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"{path}: labels must be whole numbers, got {y.dtype}. Number the classes from 0.")
    there = np.unique(y)
    if xs[0] == "x" and there.tolist() != list(range(len(there))) and source.test is None:
        listed = ", ".join(map(str, there[:6])) + ("..." if len(there) > 6 else "")
        raise DataError(f"{path}: labels must be 0..{len(there) - 1} without gaps, got {listed}. Number them anew.")
    return x, y.astype(np.int64)


def _shaped(path: str, x: NDArray[Any], source: OwnData) -> NDArray[Any]:
    """Return rows as [N, F] or [N, C, H, W]."""
    if x.dtype != np.uint8:
        if not np.issubdtype(x.dtype, np.number):
            raise DataError(f"{path}: must hold numbers, got {x.dtype}.")
        x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise DataError(f"{path}: must hold finite numbers, got a missing or infinite one.")
    if source.shape is not None:
        if int(np.prod(x.shape[1:])) != int(np.prod(source.shape)):
            raise DataError(f"{path}: shape: rows must fit {list(source.shape)}, got {list(x.shape[1:])}.")
        return x.reshape(-1, *source.shape)
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    if x.ndim not in (2, 4):
        raise DataError(f"{path}: must be [rows, numbers] or images [rows, channels, height, width], got {x.shape}.")
    return x


def _images(source: OwnData) -> Content:
    root = Path(str(source.image_folder))
    test_root = Path(source.test) if source.test is not None else None
    if test_root is None and (root / "train").is_dir() and (root / "test").is_dir():
        root, test_root = root / "train", root / "test"
    x, names, digest = read_folder(root, source.size, source.grey, source.skip_broken)
    classes = tuple(sorted(set(names)))
    _check_classes(str(root), names, classes)
    y = np.array([classes.index(name) for name in names], dtype=np.int64)
    if test_root is None:
        train, test = _cut(y, source)
        return Content(Rows(x[train], y[train]), Rows(x[test], y[test]), classes, 255.0, digest)
    test_x, test_names, test_digest = read_folder(test_root, source.size, source.grey, source.skip_broken)
    unknown = sorted(set(test_names) - set(classes))
    if unknown:
        raise DataError(f'{test_root}: must have the classes of {root}, got "{unknown[0]}".')
    test_y = np.array([classes.index(name) for name in test_names], dtype=np.int64)
    return Content(Rows(x, y), Rows(test_x, test_y), classes, 255.0, digest + test_digest)


def _check_classes(path: str, names: list[str], classes: tuple[str, ...]) -> None:
    if len(classes) < 2:
        raise DataError(f"{path}: must have at least two classes, got {len(classes)} ({', '.join(classes)}).")
    counts = dict.fromkeys(classes, 0)
    for name in names:
        counts[name] += 1
    rare = min(counts, key=lambda name: counts[name])
    if counts[rare] < MIN_ROWS:
        rows = "row" if counts[rare] == 1 else "rows"
        raise DataError(
            f'{path}: class "{rare}" must have at least {MIN_ROWS} rows, got {counts[rare]} {rows}. '
            "Add some, or remove the class."
        )


def _cut(y: NDArray[np.int64], source: OwnData) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return training and test rows: stratified, by a fixed seed."""
    from sklearn.model_selection import train_test_split

    classes, rows = len(np.unique(y)), np.arange(len(y))
    size = max(classes, round(source.test_fraction * len(y)))
    if size > len(y) - 2 * classes:
        raise DataError(f"{source.path}: must have more rows: {len(y)} are too few for {classes} classes and a test.")
    train, test = train_test_split(rows, test_size=size, stratify=y, random_state=0)
    return np.sort(train), np.sort(test)


def _digest_of(path: str) -> str:
    return files.sha256(Path(path))
