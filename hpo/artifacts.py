"""A study's files: below `HPO_ARTIFACTS` (a folder or s3://BUCKET/PREFIX), else in a folder beside the store.

They are kept under the study's uid, for its name can change: `UID/checkpoints/ROOT.safetensors`.
"""

import contextlib
import io
import os
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.engine import URL

from hpo import files
from hpo.errors import UsageError


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
    """Files in a folder; each is written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, content: bytes) -> None:
        """Put a file in place, whole or not at all. Raises: OSError."""
        files.write(self.path / name, content)

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None for a missing one. Raises: OSError."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Delete a file, if it exists. Raises: OSError."""
        (self.path / name).unlink(missing_ok=True)


class S3Files:
    """Files in S3, through Optuna's artifact store."""

    def __init__(self, bucket: str, prefix: str) -> None:
        try:
            from optuna.artifacts import Boto3ArtifactStore

            self._store: Any = Boto3ArtifactStore(bucket)
        except ImportError as error:
            raise UsageError("HPO_ARTIFACTS: s3:// needs boto3. Install it: pip install 'hpo[s3]'") from error
        self._prefix = prefix

    def write(self, name: str, content: bytes) -> None:
        """Put a file in place, whole or not at all. Raises: OSError."""
        with _as_os_error():
            self._store.write(self._prefix + name, io.BytesIO(content))

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None for a missing one. Raises: OSError."""
        from optuna.artifacts.exceptions import ArtifactNotFound

        try:
            with _as_os_error(), self._store.open_reader(self._prefix + name) as body:
                return bytes(body.read())
        except ArtifactNotFound:
            return None

    def remove(self, name: str) -> None:
        """Delete a file, if it exists. Raises: OSError."""
        with _as_os_error():
            self._store.remove(self._prefix + name)


@contextlib.contextmanager
def _as_os_error() -> Any:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise OSError(f"S3: {error}") from error


def configured_root(url: URL) -> str:
    """Return the root of all studies' files: a folder or an s3:// URL."""
    configured = os.environ.get("HPO_ARTIFACTS")
    if configured:
        return configured
    beside = Path(str(url.database)).parent if url.get_backend_name() == "sqlite" else Path("runs")
    return str(beside / "artifacts")


def study_files(url: URL, uid: str) -> Files:
    """Return a study's files. Raises: UsageError for a root that cannot be one."""
    root = configured_root(url)
    if root.startswith("s3://"):
        bucket, _, prefix = root.removeprefix("s3://").partition("/")
        if not bucket:
            raise UsageError(f'HPO_ARTIFACTS: must name a bucket, got "{root}". Use s3://BUCKET/PREFIX.')
        return S3Files(bucket, f"{prefix.strip('/')}/{uid}/".lstrip("/"))
    if "://" in root:
        raise UsageError(f'HPO_ARTIFACTS: must be a folder or s3://BUCKET/PREFIX, got "{root}".')
    return FolderFiles(Path(root) / uid)


def local_root(url: URL) -> Path:
    """Return the folder of this machine for files that are never in S3: logs, pictures, data given from Python."""
    root = configured_root(url)
    return Path("runs") / "artifacts" if "://" in root else Path(root)


def log_folder(url: URL, uid: str) -> Path:
    """Return the folder of the workers' logs on this machine."""
    return local_root(url) / uid / "logs"


def dashboard_folder(url: URL) -> Path:
    """Return the folder of the artifacts that Optuna's dashboard shows."""
    return local_root(url) / "dashboard"


def data_folder(url: URL) -> Path:
    """Return the folder of data that was given from Python as arrays or tables."""
    return local_root(url) / "data"
