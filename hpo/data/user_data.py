"""The user's data: tables (CSV, Parquet), arrays (npz), folders of images. Checked before any trial is run."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo import files
from hpo.config import OwnData
from hpo.data import decoding
from hpo.data.encoding import check_columns, feature_count
from hpo.data.images import read_folder
from hpo.data.registry import DataInfo
from hpo.errors import DataError, UsageError, suggestion

MIN_ROWS = 3
"""Fewest rows of a class: one to train on, one to validate on, one to test on."""


@dataclass(frozen=True)
class Rows:
    """Rows and labels of a source: x is an array [N, ...] or the DataFrame of a table; y are class numbers."""

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
    columns: tuple[str, ...] = ()
    """Names of the numbers of a row, where an npz file gives them."""
    cut: bool = False
    """Whether the test rows were drawn from the rows of the source."""


def describe(source: OwnData) -> DataInfo:
    """Return the description of a source. Raises: UsageError for a missing one, DataError for a wrong content."""
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
        user_data=source,
        columns=content.columns,
        test_like_training=content.cut,
    )


def read(source: OwnData) -> Content:
    """Return a source's content; what has not changed is read once per process. Raises: UsageError, DataError."""
    path = Path(source.path)
    for each in (source.path, source.test):
        if each is not None and not Path(each).exists():
            raise UsageError(f"{each}: no such file or folder. Give the path of your data: --data PATH.")
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
    _check_classes(path, list(names), classes, _least_rows(source))
    y = np.array([classes.index(name) for name in names], dtype=np.int64)
    digest = files.sha256(Path(path))
    if source.test is None:
        train, test = _split(y, source)
        trained, tested = (Rows(frame.iloc[rows], y[rows]) for rows in (train, test))
        return Content(trained, tested, classes, 1.0, digest, cut=True)
    test_frame, test_names = _frame(source, source.test)
    missing = [column for column in frame.columns if column not in test_frame.columns]
    if missing:
        raise DataError(f'{source.test}: must have the columns of {path}, got none named "{missing[0]}".')
    unknown = sorted(set(test_names) - set(classes))
    if unknown:
        raise DataError(f'{source.test}: must have the classes of {path}, got "{unknown[0]}".')
    test_y = np.array([classes.index(name) for name in test_names], dtype=np.int64)
    both = digest + files.sha256(Path(source.test))
    return Content(Rows(frame, y), Rows(test_frame[list(frame.columns)], test_y), classes, 1.0, both)


def _frame(source: OwnData, path: str) -> tuple[Any, list[str]]:
    """Return a table's features and the names of its rows' classes."""
    import pandas as pd

    frame = decoding.read_table(Path(path))
    columns = list(frame.columns)
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
    arrays = decoding.read_arrays(Path(path))
    x, y = _pair(path, arrays, ("x", "train_x", "x_train"), ("y", "train_y", "y_train"), source)
    test_path = source.test or path
    test_arrays = arrays if source.test is None else decoding.read_arrays(Path(source.test))
    first = 1 if source.test is None else 0  # in a separate file, test rows may be named x too
    test_names = (("x", "x_test", "test_x")[first:], ("y", "y_test", "test_y")[first:])
    scale = 255.0 if x.dtype == np.uint8 else 1.0
    if y.max() >= len(y):  # before a name is made for each number
        raise DataError(f"{path}: labels must be 0..K-1 for K classes, got {y.max()} in {len(y)} rows. Renumber them.")
    classes = _names(path, arrays, "classes") or tuple(str(i) for i in range(int(y.max()) + 1))
    if len(classes) <= y.max():
        raise DataError(f"{path}: classes: must name every label, got {len(classes)} names and label {y.max()}.")
    _check_classes(path, [classes[label] for label in y], classes, _least_rows(source))
    columns = _names(path, arrays, "columns")
    if columns and (x.ndim != 2 or len(columns) != x.shape[1]):
        raise DataError(f"{path}: columns: must name the numbers of a row, got {len(columns)} for {list(x.shape[1:])}.")
    cut = source.test is None and not any(name in arrays for name in test_names[0])
    if not cut:
        test_x, test_y = _pair(test_path, test_arrays, *test_names, source)
        if test_x.shape[1:] != x.shape[1:] or test_y.max() >= len(classes):
            raise DataError(f"{test_path}: test rows must be shaped and labelled as the training rows.")
        train, test = Rows(x, y), Rows(test_x, test_y)
    else:
        train_rows, test_rows = _split(y, source)
        train, test = Rows(x[train_rows], y[train_rows]), Rows(x[test_rows], y[test_rows])
    digest = files.sha256(Path(path)) + ("" if source.test is None else files.sha256(Path(source.test)))
    return Content(train, test, classes, scale, digest, columns, cut)


def _names(path: str, arrays: dict[str, NDArray[Any]], name: str) -> tuple[str, ...]:
    """Return the names in an optional array of texts; none if it is not given."""
    if name not in arrays:
        return ()
    names = arrays[name]
    if names.dtype.kind != "U" or names.ndim != 1:
        raise DataError(f"{path}: {name}: must be one text each, got {names.dtype} of shape {names.shape}.")
    listed = tuple(names.tolist())
    most_common, count = Counter(listed).most_common(1)[0] if listed else ("", 0)
    if count > 1:
        raise DataError(f'{path}: {name}: must differ from each other, got "{most_common}" {count} times.')
    return listed


def _pair(
    path: str, arrays: dict[str, NDArray[Any]], xs: tuple[str, ...], ys: tuple[str, ...], source: OwnData
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return rows and labels, each by the first of its names that the file has."""
    x, y = (next((arrays[name] for name in names if name in arrays), None) for names in (xs, ys))
    if x is None or y is None:
        raise DataError(f'{path}: must hold arrays "{xs[0]}" and "{ys[0]}", got {", ".join(arrays) or "none"}.')
    x = decoding.array_rows(x, path, source.shape)
    if y.ndim != 1 or len(x) != len(y):
        raise DataError(f"{path}: must have one label per row, got {len(x)} rows and labels of shape {y.shape}.")
    if len(y) == 0:
        raise DataError(f"{path}: must have rows, got none.")
    if y.dtype.kind not in "iu":
        raise DataError(f"{path}: labels must be whole numbers, got {y.dtype}. Number the classes from 0.")
    labels = np.unique(y)
    if labels[-1] >= 2**31:
        raise DataError(f"{path}: labels must be the numbers of classes, got {labels[-1]}. Number them from 0.")
    if labels[0] < 0:
        raise DataError(f"{path}: labels must not be negative, got {labels[0]}. Number the classes from 0.")
    if xs[0] == "x" and labels.tolist() != list(range(len(labels))) and source.test is None:
        listed = ", ".join(map(str, labels[:6])) + ("..." if len(labels) > 6 else "")
        raise DataError(f"{path}: labels must be 0..{len(labels) - 1} without gaps, got {listed}. Renumber them.")
    return x, y.astype(np.int64)


def _images(source: OwnData) -> Content:
    root = Path(str(source.image_folder))
    test_root = Path(source.test) if source.test is not None else None
    if test_root is None and (root / "train").is_dir() and (root / "test").is_dir():
        root, test_root = root / "train", root / "test"
    x, names, digest = _folder(root, source)
    classes = tuple(sorted(set(names)))
    _check_classes(str(root), names, classes, _least_rows(source))
    y = np.array([classes.index(name) for name in names], dtype=np.int64)
    if test_root is None:
        train, test = _split(y, source)
        return Content(Rows(x[train], y[train]), Rows(x[test], y[test]), classes, 255.0, digest, cut=True)
    test_x, test_names, test_digest = _folder(test_root, source)
    unknown = sorted(set(test_names) - set(classes))
    if unknown:
        raise DataError(f'{test_root}: must have the classes of {root}, got "{unknown[0]}".')
    test_y = np.array([classes.index(name) for name in test_names], dtype=np.int64)
    return Content(Rows(x, y), Rows(test_x, test_y), classes, 255.0, digest + test_digest)


def _folder(root: Path, source: OwnData) -> tuple[NDArray[np.uint8], list[str], str]:
    return read_folder(root, source.size, grey=source.grey, skip_broken=source.skip_broken)


def _least_rows(source: OwnData) -> int:
    """Return how many rows a class must have: one to train on, one to validate on and, where rows are cut off, one
    for the test.
    """
    return MIN_ROWS if source.test_fraction > 0 or source.test is not None else MIN_ROWS - 1


def _check_classes(path: str, names: list[str], classes: tuple[str, ...], least: int) -> None:
    if len(classes) < 2:
        raise DataError(f"{path}: must have at least two classes, got {len(classes)} ({', '.join(classes)}).")
    counts = dict.fromkeys(classes, 0)
    for name in names:
        counts[name] += 1
    rare = min(counts, key=lambda name: counts[name])
    if counts[rare] < least:
        rows = "row" if counts[rare] == 1 else "rows"
        raise DataError(
            f'{path}: class "{rare}" must have at least {least} rows, got {counts[rare]} {rows}. '
            "Add some, or remove the class."
        )


def _split(y: NDArray[np.int64], source: OwnData) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return training and test rows: stratified, by a fixed seed."""
    from sklearn.model_selection import train_test_split

    classes, rows = len(np.unique(y)), np.arange(len(y))
    if source.test_fraction == 0:
        return rows, rows[:0]
    size = max(classes, round(source.test_fraction * len(y)))
    if size > len(y) - 2 * classes:
        raise DataError(f"{source.path}: must have more rows: {len(y)} are too few for {classes} classes and a test.")
    train, test = train_test_split(rows, test_size=size, stratify=y, random_state=0)
    return np.sort(train), np.sort(test)
