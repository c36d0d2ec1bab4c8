"""Data given from Python - a DataFrame, arrays, a torch data set - as a file that worker processes can read.

The file lies in the artifact folder and is named after the SHA-256 of its content: the same data is written once, and
a study recognizes it. Tables become Parquet, arrays become npz without pickled objects.
"""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpo import files
from hpo.config import OwnData
from hpo.errors import InputError, suggestion

if TYPE_CHECKING:
    import pandas as pd

    Frame = pd.DataFrame

DEFAULT_LABEL = "label"
"""Name of the label column where a table and its labels are given apart."""
PREVIEW = 8
"""Column names that an error lists."""


def to_source(data: Any, label: str | None, *, test: Any = None, test_fraction: float, folder: Path) -> OwnData:
    """Return where workers find data: its file, written into `folder` unless it is there already.

    `data` is an `OwnData`, a DataFrame with a column `label`, a pair (X, y), or a map-style torch data set of pairs
    (x, y). X is a DataFrame, numbers [N, F], or images [N, H, W], [N, C, H, W] or [N, H, W, C] (uint8 0..255, or
    floats); y holds N class labels of any type. `test` holds test rows in the same form; without them,
    `test_fraction` of the rows. Raises: InputError for what cannot be searched on; OSError if the folder cannot be
    written.
    """
    if isinstance(data, OwnData):
        return data
    if _is_frame(data):
        frame = _labelled(data, label, "data")
        test_frame = None if test is None else _labelled(test, label, "test")
        return _write_table(frame, str(label), test_frame, test_fraction, folder)
    if label is not None:
        raise InputError(
            f'label: names a column of a DataFrame or file, got "{label}" with {type(data).__name__}. Remove it.'
        )
    x, y = _pair(data, "data")
    test_pair = None if test is None else _pair(test, "test")
    if _is_frame(x) or _is_mixed(x):
        train = _joined(x, y)
        test_frame = None if test_pair is None else _joined(*test_pair)
        return _write_table(train, str(train.columns[-1]), test_frame, test_fraction, folder)
    return _write_arrays(x, y, test_pair, test_fraction, folder)


def check_labels(y: Any, where: str) -> NDArray[Any]:
    """Return labels as an array [N]; whole floats become integers.

    Raises: InputError for missing labels, continuous numbers, more than one label per row, or a single class.
    """
    import pandas as pd

    labels = np.asarray(_to_numpy(y))
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise InputError(
            f"{where}: must have one label per row, got labels of shape {labels.shape}. Give class numbers or names."
        )
    missing = np.flatnonzero(pd.isna(labels))
    if len(missing):
        raise InputError(
            f"{where}: labels must not be missing, got {len(missing)} missing (the first in row {missing[0]}). "
            "Remove these rows."
        )
    if np.issubdtype(labels.dtype, np.floating):
        if not np.equal(np.mod(labels, 1), 0).all():
            first = labels[np.mod(labels, 1) != 0][0]
            raise InputError(
                f"{where}: labels must be classes, got the continuous number {first:g}. hpo trains classifiers only."
            )
        labels = labels.astype(np.int64)
    if len(labels) and len(np.unique(labels.astype(str) if labels.dtype == object else labels)) < 2:
        raise InputError(f'{where}: labels must have at least two classes, got one class ("{labels[0]}").')
    return labels


def _is_frame(value: Any) -> bool:
    return hasattr(value, "columns") and hasattr(value, "iloc")


def _to_numpy(value: Any) -> Any:
    """Return torch tensors as arrays, other values as they are."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _pair(data: Any, where: str) -> tuple[Any, NDArray[Any]]:
    """Return rows and labels of a pair (X, y) or of a map-style data set."""
    names: Sequence[str] | None = None
    if isinstance(data, tuple | list) and len(data) == 2:
        x, y = data
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        x, y = _stacked(data, where)
        names = getattr(data, "classes", None)
    else:
        raise InputError(
            f"{where}: must be a DataFrame, a pair (X, y), a path or a data set with len() and [i], "
            f"got {type(data).__name__}."
        )
    if not _is_frame(x):
        x = np.asarray(_to_numpy(x))
        if x.ndim < 2:
            raise InputError(
                f"{where}: X must have a row for each label, got an array of shape {x.shape}. "
                "Reshape it to [N, features]."
            )
    if len(x) != len(y):
        raise InputError(f"{where}: X and y must have the same length, got {len(x)} rows and {len(y)} labels.")
    if len(x) == 0:
        raise InputError(f"{where}: must have rows, got none.")
    labels = check_labels(y, where)
    if names is not None and np.issubdtype(labels.dtype, np.integer) and labels.max() < len(names):
        labels = np.array([str(name) for name in names])[labels]
    return x, labels


def _stacked(data: Any, where: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return all items (x, y) of a data set as two arrays; pictures (PIL) become uint8."""
    rows, labels = [], []
    for i in range(len(data)):
        item = data[i]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise InputError(f"{where}: its items must be pairs (x, y), got {type(item).__name__} at {i}.")
        rows.append(np.asarray(_to_numpy(item[0])))
        labels.append(_to_numpy(item[1]))
    shapes = {row.shape for row in rows}
    if len(shapes) > 1:
        raise InputError(
            f"{where}: all rows must have one shape, got {', '.join(map(str, sorted(shapes)[:3]))}. Add a transform."
        )
    if not rows:
        raise InputError(f"{where}: must have rows, got none.")
    return np.stack(rows), np.asarray(labels).reshape(len(rows))


def _is_mixed(x: NDArray[Any]) -> bool:
    """Say whether an array holds texts or objects: such rows are a table."""
    return x.ndim == 2 and not (np.issubdtype(x.dtype, np.number) or x.dtype == np.bool_)


def _labelled(frame: "Frame", label: str | None, where: str) -> "Frame":
    """Return a table whose label column is checked."""
    columns = [str(column) for column in frame.columns]
    if label is None:
        raise InputError(
            f"{where}: a DataFrame needs the name of the column that holds the class. "
            f'Give label="COLUMN", one of {", ".join(columns[:PREVIEW])}.'
        )
    if label not in columns:
        raise InputError(f'{where}: no column named "{label}". {suggestion(label, columns)}')
    result = frame.reset_index(drop=True)
    result.columns = columns
    return result.assign(**{label: check_labels(result[label], f"{where}: {label}")})


def _joined(x: Any, y: NDArray[Any]) -> "Frame":
    """Return a table whose last column holds the labels."""
    import pandas as pd

    frame = x.reset_index(drop=True) if _is_frame(x) else pd.DataFrame(x)
    frame.columns = [str(column) for column in frame.columns]
    label = DEFAULT_LABEL
    while label in frame.columns:
        label += "_"
    joined: Frame = frame.assign(**{label: y})
    return joined


def _write_table(frame: "Frame", label: str, test: "Frame | None", test_fraction: float, folder: Path) -> OwnData:
    path = _write(_parquet(frame), ".parquet", folder)
    test_path = None if test is None else _write(_parquet(test), ".parquet", folder)
    return OwnData(csv=path, target=label, test=test_path, test_fraction=test_fraction)


def _parquet(frame: "Frame") -> bytes:
    columns = {name: frame[name].map(str, na_action="ignore") for name in frame.columns if _is_text(frame[name])}
    buffer = io.BytesIO()
    frame.assign(**columns).to_parquet(buffer, index=False)
    return buffer.getvalue()


def _is_text(column: Any) -> bool:
    """Say whether a column holds objects of any kind: texts, categories, mixed values."""
    return bool(column.dtype == object or str(column.dtype) == "category")


def _write_arrays(
    x: NDArray[Any], y: NDArray[Any], test: tuple[Any, NDArray[Any]] | None, test_fraction: float, folder: Path
) -> OwnData:
    classes, codes = np.unique(y.astype(str) if y.dtype == object else y, return_inverse=True)
    arrays = {
        "x": _numbers(x, "data"),
        "y": codes.astype(np.int64),
        "classes": np.array([str(name) for name in classes]),
    }
    if test is not None:
        test_x, test_y = test
        positions = {str(name): i for i, name in enumerate(classes)}
        unknown = [str(name) for name in test_y if str(name) not in positions]
        if unknown:
            raise InputError(f'test: must have the classes of data, got "{unknown[0]}".')
        test_codes = np.array([positions[str(name)] for name in test_y], dtype=np.int64)
        arrays |= {"x_test": _numbers(test_x, "test"), "y_test": test_codes}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return OwnData(npz=_write(buffer.getvalue(), ".npz", folder), test_fraction=test_fraction)


def _numbers(x: NDArray[Any], where: str) -> NDArray[Any]:
    """Return rows as uint8 or float32. Raises: InputError for anything but finite numbers."""
    if x.dtype == np.uint8:
        return x
    if not (np.issubdtype(x.dtype, np.number) or x.dtype == np.bool_) or np.iscomplexobj(x):
        raise InputError(f"{where}: X must hold numbers, got {x.dtype}.")
    numbers = x.astype(np.float32)
    broken = np.argwhere(~np.isfinite(numbers))
    if len(broken):
        raise InputError(
            f"{where}: X must hold finite numbers, got {len(broken)} missing or infinite "
            f"(the first in row {broken[0][0]}). "
            "Fill them in, or give a DataFrame: there, missing numbers become the median."
        )
    return numbers


def _write(content: bytes, suffix: str, folder: Path) -> str:
    """Write content under the name of its digest, unless it is there; return the whole path."""
    path = (folder / f"{hashlib.sha256(content).hexdigest()[:32]}{suffix}").absolute()
    if not path.exists():
        files.write(path, content)
    return str(path)
