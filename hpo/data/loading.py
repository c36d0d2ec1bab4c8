"""Read data sets into arrays, split validation from training, and identify the content by a fingerprint.

The test part has its own function: the search never calls it.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpo.config import OwnData, Split
from hpo.data import user_data
from hpo.data.cache import checksum, path_of, verify
from hpo.data.encoding import Encoding
from hpo.data.registry import DataFile, DataInfo, known_info
from hpo.data.user_data import Rows
from hpo.errors import DataError

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Inputs:
    """Rows and labels: x is uint8 [N, C, H, W] or float32 [N, ...], y is int64 [N]."""

    x: Array
    y: NDArray[np.int64]


@dataclass(frozen=True)
class Parts:
    """The training split, divided into training and validation rows, and the numbers that standardize both."""

    info: DataInfo
    train: Inputs
    validation: Inputs
    mean: NDArray[np.float32]
    """Mean of `x / scale` over the training rows: one number per channel of images, per column of tables."""
    std: NDArray[np.float32]
    """Standard deviation of the same, with 1 where a column never changes."""
    fingerprint: str
    encoding: Encoding | None = None
    """How the columns of the user's table became numbers; None for other data."""


def info(source: str | OwnData | None) -> DataInfo:
    """Return the description of a data set, known by name or the user's.

    Raises: UsageError for an unknown name or a missing file, DataError for what is wrong in a file.
    """
    return user_data.describe(source) if isinstance(source, OwnData) else known_info(source)


def load_parts(data: DataInfo, split: Split) -> Parts:
    """Read the training split and cut it. Raises: DataError for missing or damaged files."""
    everything, encoding = _read(data, test=False), None
    train_rows, validation_rows = split_rows(everything.y, split, data.name)
    if isinstance(everything, Rows):
        encoding = Encoding.fit(everything.x.iloc[train_rows], everything.x)
        everything = Inputs(encoding.apply(everything.x, data.name), everything.y)
    train = Inputs(everything.x[train_rows], everything.y[train_rows])
    scaled_axes = (0, 2, 3) if data.kind == "images" else (0,)
    mean = train.x.mean(axis=scaled_axes, dtype=np.float64) / data.scale
    std = train.x.std(axis=scaled_axes, dtype=np.float64) / data.scale
    return Parts(
        info=data,
        train=train,
        validation=Inputs(everything.x[validation_rows], everything.y[validation_rows]),
        mean=mean.astype(np.float32),
        std=np.where(std > 0, std, 1.0).astype(np.float32),
        fingerprint=_digest(data, everything, validation_rows),
        encoding=encoding,
    )


def load_test(data: DataInfo, encoding: Encoding | None = None) -> Inputs:
    """Read the test split: once, after the search; a table by the encoding of its training rows.

    Raises: DataError for missing or damaged files.
    """
    if data.rows[1] == 0:
        raise DataError(
            f"{data.name}: must have test rows, got none (test_fraction = 0). Give some, or a fraction above 0."
        )
    rows = _read(data, test=True)
    if isinstance(rows, Rows):
        assert encoding is not None, "a table is read by the encoding of its training rows"
        return Inputs(encoding.apply(rows.x, data.name), rows.y)
    return rows


def fingerprint(data: DataInfo, split: Split) -> str:
    """Return the hexadecimal digest that identifies a data set's content and its validation rows."""
    everything = _read(data, test=False)
    return _digest(data, everything, split_rows(everything.y, split, data.name)[1])


def class_counts(data: DataInfo) -> dict[str, int]:
    """Return how many training rows, validation included, each class has."""
    counts = np.bincount(_read(data, test=False).y, minlength=len(data.classes))
    return dict(zip(data.classes, counts.tolist(), strict=True))


def _digest(data: DataInfo, everything: Inputs | Rows, validation_rows: NDArray[np.int64]) -> str:
    digest = hashlib.sha256()
    if data.user_data is not None:
        digest.update(user_data.read(data.user_data).digest.encode())
    elif data.files:  # whose checksums were verified on reading; those of the test files count too
        for file in data.files:
            digest.update(checksum(data, file).encode())
    else:
        for test in (False, True):
            part = _bundled(data, test=test)
            digest.update(np.ascontiguousarray(part.x).tobytes())
            digest.update(part.y.tobytes())
    digest.update(np.sort(validation_rows).tobytes())
    return digest.hexdigest()


def split_rows(labels: NDArray[np.int64], split: Split, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return training and validation rows: stratified, the same for the same seed."""
    from sklearn.model_selection import train_test_split

    validation, classes = split.rows_of(len(labels)), len(np.unique(labels))
    if not classes <= validation <= len(labels) - classes:
        raise DataError(
            f"{name}: split.validation must leave at least one row per class on each side, "
            f"got {validation} of {len(labels)} rows and {classes} classes. Change it in the space."
        )
    rows = np.arange(len(labels))
    train_rows, validation_rows = train_test_split(rows, test_size=validation, stratify=labels, random_state=split.seed)
    return np.sort(train_rows), np.sort(validation_rows)


def _read(data: DataInfo, *, test: bool) -> Inputs | Rows:
    if data.user_data is not None:
        content = user_data.read(data.user_data)
        rows = content.test if test else content.train
        return rows if data.user_data.kind == "csv" else Inputs(rows.x, rows.y)
    if not data.files:
        return _bundled(data, test=test)
    images, labels = data.files[2:] if test else data.files[:2]
    try:
        verify(data, (images, labels))
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise DataError(f"{error.filename}: {reason}. Run `hpo data fetch {data.name}`.") from error
    return Inputs(_idx(data, images).reshape(-1, *data.input_shape), _idx(data, labels).astype(np.int64))


def _idx(data: DataInfo, file: DataFile) -> NDArray[np.uint8]:
    """Read the IDX format of MNIST: two zero bytes, type, rank, big-endian sizes, then bytes."""
    content = path_of(data, file).read_bytes()
    rank = content[3]
    shape = np.frombuffer(content, dtype=">u4", count=rank, offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * rank).reshape(shape)


def _bundled(data: DataInfo, *, test: bool) -> Inputs:
    """Read a data set of scikit-learn's; every fifth row of a class, by a fixed seed, is test."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    x, y = getattr(datasets, f"load_{data.name}")(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    x, y = (test_x, test_y) if test else (train_x, train_y)
    return Inputs(x.reshape(-1, *data.input_shape).astype(np.float32), y.astype(np.int64))
