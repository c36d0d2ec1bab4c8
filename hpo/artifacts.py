"""A study's files: below `HPO_ARTIFACTS` (a folder or s3://BUCKET/PREFIX), else in a folder beside the store.

They are kept under the study's uid, for its name can change: `UID/checkpoints/ROOT.safetensors`.
A uid comes from the store, which another may have written: it is checked before it becomes part of a path, and links
in the folder are not followed.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Protocol

from sqlalchemy.engine import URL

from hpo import files
from hpo.errors import StoreError, UsageError
from hpo.s3.bucket import S3Files
from hpo.s3.bucket import parse as bucket_of

_UID = re.compile(r"[0-9a-f]{32}")


class Files(Protocol):
    """Named files of one study."""

    def write(self, name: str, content: bytes) -> None:
        """Put a file in place, whole or not at all. Raises: OSError."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None for a missing one. Raises: OSError."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file, if it exists. Raises: OSError."""
        ...


class FolderFiles:
    """Files in a folder; each is written whole or not at all. Links and pipes in the folder are refused."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, content: bytes) -> None:
        """Put a file in place, whole or not at all. Raises: OSError."""
        path = files.under(self.path, name)
        if path.is_fifo():  # writing would wait for a reader
            raise OSError(f"{path}: must be a file, got a pipe. Remove it")
        if len(content) > files.most_bytes():
            raise OSError(f"{path}: {files.too_large(files.most_bytes())}")
        files.write(path, content)

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None for a missing one. Raises: OSError."""
        path = files.under(self.path, name)
        if path.exists() and not path.is_file():  # pipes and devices can be read without end
            raise OSError(f"{path}: must be a file, got something else. Remove it")
        try:
            return files.read(path)
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Delete a file, if it exists. Raises: OSError."""
        files.under(self.path, name).unlink(missing_ok=True)


def configured_root(url: URL) -> str:
    """Return the root of all studies' files: a folder or an s3:// URL. Raises: UsageError for another URL."""
    configured = os.environ.get("HPO_ARTIFACTS")
    if configured:
        if configured.startswith("s3://"):
            bucket_of(configured)
        elif "://" in configured:
            raise UsageError(f"HPO_ARTIFACTS: must be a folder or s3://BUCKET/PREFIX, got {configured!r:.80}.")
        return configured
    beside = Path(str(url.database)).parent if url.get_backend_name() == "sqlite" else Path("runs")
    return str(beside / "artifacts")


def check_uid(uid: object) -> str:
    """Return a study's uid as a store gives it. Raises: StoreError if it is not 32 hexadecimal digits."""
    if not isinstance(uid, str) or not _UID.fullmatch(uid):
        raise StoreError(
            f"hpo_studies: uid: must be 32 hexadecimal digits, got {uid!r:.80}: it names a folder. "
            "The store is damaged, or was changed by hand; do not trust it."
        )
    return uid


def _below(root: Path, name: str) -> Path:
    try:
        return files.under(root, name)
    except OSError as error:
        raise StoreError(f"{error}.") from error


def study_files(url: URL, uid: str) -> Files:
    """Return a study's files. Raises: UsageError for a root that cannot be one, StoreError for a uid that is none."""
    root = configured_root(url)
    if root.startswith("s3://"):
        bucket, prefix = bucket_of(root)
        return S3Files(bucket, f"{prefix}{check_uid(uid)}/")
    return FolderFiles(study_folder(url, uid))


def local_root(url: URL) -> Path:
    """Return the folder of this machine for files that are never in S3: logs, pictures, data given from Python."""
    root = configured_root(url)
    return Path("runs") / "artifacts" if "://" in root else Path(root)


def study_folder(url: URL, uid: str) -> Path:
    """Return the folder of a study's files on this machine. Raises: StoreError for a wrong uid and for links."""
    return _below(local_root(url), check_uid(uid))


def log_folder(url: URL, uid: str) -> Path:
    """Return the folder of the workers' logs on this machine. Raises: StoreError as `study_folder` does."""
    return _below(study_folder(url, uid), "logs")


def dashboard_folder(url: URL) -> Path:
    """Return the folder of the artifacts that Optuna's dashboard shows. Raises: StoreError if it is a link."""
    return _below(local_root(url), "dashboard")


def data_folder(url: URL) -> Path:
    """Return the folder of data that was given from Python as arrays or tables. Raises: StoreError if it is a link."""
    return _below(local_root(url), "data")


def remove_study_files(url: URL, uid: str) -> None:
    """Delete a study's files and pictures on this machine; links are deleted, not followed. Raises: StoreError."""
    for picture in dashboard_folder(url).glob(f"{check_uid(uid)}-*"):
        picture.unlink(missing_ok=True)
    folder = local_root(url) / uid
    if folder.is_symlink():
        folder.unlink(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def copy_study_files(source: URL, old_uid: str, target: URL, uid: str) -> bool:
    """Copy a study's files and pictures, without links; return False if the files are in S3, or are to go there.

    Raises: OSError, StoreError.
    """
    pictures = [dashboard_folder(url) for url in (source, target)]
    if pictures[0] != pictures[1] and pictures[0].is_dir():
        pictures[1].mkdir(parents=True, exist_ok=True)
        for picture in pictures[0].glob(f"{check_uid(old_uid)}-*"):
            if not picture.is_symlink():
                files.write(files.under(pictures[1], picture.name), picture.read_bytes())
    if any("://" in configured_root(url) for url in (source, target)):
        return False
    folder = study_folder(source, old_uid)
    if folder.is_dir():
        shutil.copytree(folder, study_folder(target, uid), ignore=_links)
    return True


def _links(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_symlink()]
