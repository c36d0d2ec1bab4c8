"""What workers on several machines must share, and what their environment gets from this one."""

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL

from hpo import __version__, files
from hpo.artifacts import configured_root, study_files
from hpo.errors import HpoError, UsageError
from hpo.s3.bucket import VARIABLE as SECONDS_VARIABLE
from hpo.store.database.connect import exists
from hpo.store.database.url import complete, parse, shown
from hpo.user_code import NAMED

TRAVELLING = ("HPO_DATA", NAMED, SECONDS_VARIABLE)
"""Variables that workers elsewhere get as they are here."""


def refuse_one_machine(url: URL, where: str) -> None:
    """Check that a store and its artifacts can serve several machines; `where` says why there are several.

    Raises: UsageError.
    """
    if url.get_backend_name() == "sqlite":
        raise UsageError(
            f"storage: must be Postgres with {where}, got {shown(url)}: SQLite serves one machine. "
            "Copy the study: hpo studies copy STUDY --to postgresql://..."
        )
    if not os.environ.get("HPO_ARTIFACTS"):
        raise UsageError(
            f"HPO_ARTIFACTS: must be set with {where}, got nothing: {configured_root(url)} is a folder of this "
            "machine. "
            "Set it to s3://BUCKET/PREFIX or to a folder that all machines share."
        )


def travelling_environment(url: URL) -> dict[str, str]:
    """Return the variables of a worker elsewhere that come from here: where store, artifacts, data and code are."""
    root = configured_root(url)
    artifacts = root if "://" in root else str(Path(root).absolute())
    given = {name: os.environ[name] for name in TRAVELLING if os.environ.get(name)}
    return {"HPO_STORAGE": complete(url), "HPO_ARTIFACTS": artifacts, **given}


@dataclass(frozen=True)
class Marker:
    """A file in the artifact folder by which other machines see that they have the same folder; none for S3."""

    path: str
    content: str

    @classmethod
    def put(cls, url: URL) -> "Marker":
        """Write the file. Raises: UsageError if the folder cannot be written."""
        root = configured_root(url)
        if "://" in root:
            return cls("", "")
        marker = cls(str(Path(root).absolute() / f".shared-{secrets.token_hex(8)}"), secrets.token_hex(8))
        try:
            Path(root).mkdir(parents=True, exist_ok=True)
            files.write(Path(marker.path), marker.content)
        except OSError as error:
            raise UsageError(f"HPO_ARTIFACTS: {root}: cannot be written: {error.strerror or error}.") from error
        return marker

    def remove(self) -> None:
        """Delete the file."""
        if self.path:
            Path(self.path).unlink(missing_ok=True)


def problem_here(version: str, marker: Marker) -> str:
    """Return why this machine's worker could not work for a run elsewhere, as one line; empty if it could.

    The store and the artifacts are those of this process's environment.
    """
    host = socket.gethostname()
    if version != __version__:
        return f"{host}: hpo must be version {version} as where it was started, got {__version__}. Install the same."
    try:
        url = parse(os.environ["HPO_STORAGE"])
        exists(url)
        if marker.path:
            if _content(Path(marker.path)) != marker.content:
                folder = Path(marker.path).parent
                return f"{host}: HPO_ARTIFACTS: must be the same folder on all machines, got another {folder} here."
        else:
            study_files(url, "0" * 32).read("probe")
    except HpoError as error:
        return f"{host}: {error}"
    except OSError as error:
        return f"{host}: HPO_ARTIFACTS: cannot be read: {error}."
    return ""


def _content(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
