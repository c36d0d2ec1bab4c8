"""The cache of data sets: files verified by the SHA-256 of their content, written aside and renamed."""

import gzip
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import filelock
import platformdirs

from hpo.data.registry import DataFile, DataInfo
from hpo.data.sources import SourceError, sources
from hpo.errors import DataError
from hpo.files import sha256

Report = Callable[[str, int], None]
"""Told the source that is being tried and how many bytes have come from it."""


NOTED = "SHA256SUMS"
"""The sums of what came, beside the files, as sha256sum writes and checks them."""


def cache_folder() -> Path:
    """Return where data sets are kept: `HPO_DATA`, else the user's cache folder."""
    return Path(os.environ.get("HPO_DATA") or platformdirs.user_cache_dir("hpo"))


def path_of(data: DataInfo, file: DataFile) -> Path:
    """Return where a file of a data set lies in the cache, whether it is there or not."""
    return cache_folder() / data.name / file.name


def state(data: DataInfo) -> str:
    """Return 'ready', 'missing' or what is wrong with a file, for people to read."""
    try:
        verify(data, data.files)
    except OSError:
        return "missing"
    except DataError as error:
        return str(error)
    return "ready"


def verify(data: DataInfo, files: tuple[DataFile, ...]) -> None:
    """Check files in the cache. Raises: OSError for one that cannot be read, DataError for a damaged one."""
    for file in files:
        path = path_of(data, file)
        problem = _problem(path, file, checksum(data, file))
        if problem:
            raise DataError(f"{path}: {problem}. Run `hpo data fetch {data.name}` to replace it.")


def checksum(data: DataInfo, file: DataFile) -> str:
    """Return the SHA-256 that a file's content must have: the known one, or what was noted when it came.

    Raises: OSError if none was noted.
    """
    if file.sha256:
        return file.sha256
    lines = (cache_folder() / data.name / NOTED).read_text().splitlines()
    return next((line.split()[0] for line in lines if line.endswith(f"  {file.name}")), "none")


def _problem(path: Path, file: DataFile, expected: str) -> str:
    size = path.stat().st_size
    if size != file.size:
        return f"must have {file.size} bytes, got {size}"
    found = sha256(path)
    return "" if expected in (found, "") else f"must have SHA-256 {expected[:16]}..., got {found[:16]}..."


def fetch(data: DataInfo, report: Report = lambda source, size: None) -> str:
    """Bring a data set into the cache if it is not there whole; return the source it came from.

    Raises: DataError if no source gave it, with every source's reason.
    """
    if state(data) == "ready":
        return "cache" if data.files else (data.own.path if data.own else "scikit-learn")
    folder = cache_folder() / data.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".lock"):
            if state(data) == "ready":  # another process was faster
                return "cache"
            return _fetch(data, folder, report)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written: {error.strerror or error}. Set HPO_DATA to a folder of your own."
        ) from error


def _fetch(data: DataInfo, folder: Path, report: Report) -> str:
    reasons = []
    for name, bring in sources(data):
        report(name, 0)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as aside:
            try:
                brought = bring(Path(aside), lambda size, name=name: report(name, size))  # type: ignore[misc]
                ready = [_unpack(brought, file, Path(aside) / f"checked-{file.name}") for file in data.files]
            except SourceError as error:
                reasons.append(f"{name}: {error}")
                continue
            sums = "".join(f"{sha256(path)}  {file.name}\n" for file, path in zip(data.files, ready, strict=True))
            (Path(aside) / NOTED).write_text(sums)
            for file, path in zip(data.files, ready, strict=True):
                path.replace(folder / file.name)
            (Path(aside) / NOTED).replace(folder / NOTED)
        return name
    raise DataError(
        f"{data.name}: no source gave the data ({'; '.join(reasons)}). "
        f"Put {', '.join(f.name for f in data.files)} into {folder}, or try again where one can be reached."
    )


def _unpack(brought: Path, file: DataFile, target: Path) -> Path:
    """Find a file below a folder, plain or gzipped, and copy it, checked. Raises: SourceError."""
    found = next((p for name in (file.name, f"{file.name}.gz") for p in brought.rglob(name)), None)
    if found is None:
        raise SourceError(f"has no {file.name}")
    try:
        with gzip.open(found) if found.suffix == ".gz" else found.open("rb") as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    except (EOFError, gzip.BadGzipFile) as error:
        raise SourceError(f"{found.name} is damaged: {error}") from error
    problem = _problem(target, file, file.sha256)
    if problem:
        raise SourceError(f"{found.name} {problem}")
    return target
