"""The cache of data sets: files verified by the SHA-256 of their content, replaced as a whole."""

import gzip
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import platformdirs

from hpo.data.registry import DataFile, DataInfo
from hpo.data.sources import Source, SourceError, sources
from hpo.errors import DataError
from hpo.files import sha256

Report = Callable[[str, int], None]
"""Called with the source that is tried and the number of bytes that it has sent."""


SUMS = "SHA256SUMS"
"""File with the sums of a data set's files, in the format of sha256sum."""


def cache_folder() -> Path:
    """Return the folder of all data sets: `HPO_DATA`, else the user's cache folder."""
    return Path(os.environ.get("HPO_DATA") or platformdirs.user_cache_dir("hpo"))


def path_of(data: DataInfo, file: DataFile) -> Path:
    """Return the path of a data set's file in the cache, whether it exists or not."""
    return cache_folder() / data.name / file.name


def state(data: DataInfo) -> str:
    """Return 'ready', 'missing' or, in a sentence, what is wrong with a file."""
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
    """Return the SHA-256 that a file's content must have: the known one, or the one noted at its download.

    Raises: OSError if none was noted.
    """
    if file.sha256:
        return file.sha256
    lines = (cache_folder() / data.name / SUMS).read_text().splitlines()
    return next((line.split()[0] for line in lines if line.endswith(f"  {file.name}")), "none")


def _problem(path: Path, file: DataFile, expected: str) -> str:
    size = path.stat().st_size
    if size != file.size:
        return f"must have {file.size} bytes, got {size}"
    digest = sha256(path)
    return "" if expected in (digest, "") else f"must have SHA-256 {expected[:16]}..., got {digest[:16]}..."


def fetch(data: DataInfo, report: Report = lambda source, size: None) -> str:
    """Get a data set into the cache, if it is not there complete; return its source.

    Raises: DataError if no source has it, with every source's reason.
    """
    if state(data) == "ready":
        return "cache" if data.files else (data.user_data.path if data.user_data else "scikit-learn")
    folder = cache_folder() / data.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".lock"):
            if state(data) == "ready":  # another process was faster
                return "cache"
            return _fetch(data, folder, report)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written: {error.strerror or error}. Set HPO_DATA to another folder."
        ) from error


def _fetch(data: DataInfo, folder: Path, report: Report) -> str:
    reasons = []
    for name, download in (*_packed_in(folder, data), *sources(data)):
        report(name, 0)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as temporary:
            try:
                source = download(Path(temporary), lambda size, name=name: report(name, size))  # type: ignore[misc]
                ready = [_unpack(source, file, Path(temporary) / f"checked-{file.name}") for file in data.files]
            except SourceError as error:
                reasons.append(f"{name}: {error}")
                continue
            sums = "".join(f"{sha256(path)}  {file.name}\n" for file, path in zip(data.files, ready, strict=True))
            (Path(temporary) / SUMS).write_text(sums)
            for file, path in zip(data.files, ready, strict=True):
                path.replace(folder / file.name)
            (Path(temporary) / SUMS).replace(folder / SUMS)
        return name
    raise DataError(
        f"{data.name}: no source has the data ({'; '.join(reasons)}). "
        f"Put {', '.join(f.name for f in data.files)} into {folder}, as they are or as .gz, "
        "or try again where one can be reached."
    )


def _packed_in(folder: Path, data: DataInfo) -> Iterator[Source]:
    """Yield the cache's own folder as a source, if someone has put gzipped files into it."""
    packed = [path for file in data.files if (path := folder / f"{file.name}.gz").is_file()]

    def link(temporary: Path, progress: Callable[[int], None]) -> Path:
        for path in packed:
            (temporary / path.name).symlink_to(path.absolute())
        return temporary

    if packed:
        yield f"{folder}/*.gz", link


def _unpack(folder: Path, file: DataFile, target: Path) -> Path:
    """Look for a file below a folder, plain or gzipped; copy it and check the copy. Raises: SourceError."""
    packed = next((p for name in (file.name, f"{file.name}.gz") for p in folder.rglob(name)), None)
    if packed is None:
        raise SourceError(f"has no {file.name}")
    try:
        with gzip.open(packed) if packed.suffix == ".gz" else packed.open("rb") as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    except (EOFError, gzip.BadGzipFile) as error:
        raise SourceError(f"{packed.name} is damaged: {error}") from error
    problem = _problem(target, file, file.sha256)
    if problem:
        raise SourceError(f"{packed.name} {problem}")
    return target
