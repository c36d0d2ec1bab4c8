"""Data sets: listed, fetched, and the user's own described by a path."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpo import data
from hpo.config import DataSource, OwnData
from hpo.data import DataInfo
from hpo.errors import UsageError

__all__ = [
    "ClassCounts",
    "DataInfo",
    "DataSource",
    "Download",
    "FetchedData",
    "KnownData",
    "OnDownload",
    "OwnData",
    "class_counts",
    "fetch_data",
    "list_data",
    "own_data",
]

TABLES = (".csv", ".parquet", ".pq")
IMBALANCE = 3
"""Classes are imbalanced if the largest has this many times the rows of the smallest."""


@dataclass(frozen=True)
class Download:
    """How far the download of a data set has come."""

    name: str
    """Name of the data set."""
    source: str
    """Where it comes from."""
    received: int
    """Bytes received so far."""


OnDownload = Callable[[Download], None]
"""Called with the progress of a download; never called for data that is in the cache."""


@dataclass(frozen=True)
class KnownData:
    """A data set that has a name, and whether it is in the cache."""

    info: DataInfo
    state: str
    """'ready', 'missing' or what is wrong with a file."""


@dataclass(frozen=True)
class FetchedData:
    """A data set in the cache."""

    name: str
    source: str
    """Where it came from; 'cache' if it was there before."""
    folder: Path


@dataclass(frozen=True)
class ClassCounts:
    """Training rows of each class, validation rows included."""

    name: str
    """Name of the data."""
    counts: dict[str, int]

    @property
    def total(self) -> int:
        """Training rows of all classes."""
        return sum(self.counts.values())

    @property
    def imbalanced(self) -> bool:
        """Whether the largest class has three times the rows of the smallest, or more."""
        return max(self.counts.values()) >= IMBALANCE * min(self.counts.values())


def ignore_download(download: Download) -> None:
    """Show nothing of a download."""


def list_data() -> tuple[KnownData, ...]:
    """Return all known data sets, and whether each is in the cache."""
    infos = [data.info(name) for name in data.known()]
    return tuple(KnownData(info, data.state(info)) for info in infos)


def fetch_data(source: DataSource | None, *, on_download: OnDownload = ignore_download) -> FetchedData:
    """Bring a data set into the cache, verified; damaged files are replaced.

    Raises: UsageError for an unknown name, DataError if no source has the data, or for what is wrong in a file.
    """
    info = data.info(source)
    came_from = data.fetch(info, lambda origin, size: on_download(Download(info.name, origin, size)))
    return FetchedData(info.name, came_from, data.cache_folder() / info.name)


def class_counts(source: DataSource | None) -> ClassCounts:
    """Return how many training rows each class has. Raises: UsageError, DataError."""
    info = data.info(source)
    return ClassCounts(info.name, data.class_counts(info))


def own_data(path: str | Path, label: str | None = None) -> OwnData:
    """Describe data of the user's own: a table (CSV, Parquet), arrays (.npz) or a folder of images.

    `label` is the column of a table that holds the class. Raises: UsageError for a missing file or another kind.
    """
    whole = Path(path).absolute()
    if not whole.exists():
        raise UsageError(f"data: {path}: no such file or folder.")
    if whole.is_dir():
        return OwnData(image_folder=str(whole))
    if whole.suffix == ".npz":
        return OwnData(npz=str(whole))
    if whole.suffix not in TABLES:
        raise UsageError(f"data: must be a .csv, .parquet or .npz file or a folder of images, got {path}.")
    if label is None:
        raise UsageError(f"label: is required with {whole.name}: the column that holds the class.")
    return OwnData(csv=str(whole), target=label)
