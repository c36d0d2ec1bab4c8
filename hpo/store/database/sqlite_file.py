"""The file of an SQLite store: there, writable, and on a local disk."""

from pathlib import Path

from sqlalchemy.engine import URL

from hpo.errors import StoreError
from hpo.store.database.url import shown

NETWORK_FILESYSTEMS = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "fuse.sshfs", "fuse.glusterfs")
)


def check_file(url: URL, *, create: bool) -> None:
    """Check that an SQLite file can be used, and make an empty one if it is missing and `create` is set.

    Raises: StoreError if it is missing, is a folder, lies on a network filesystem, or cannot be written.
    """
    path = Path(str(url.database))
    if not path.exists() and not create:
        raise StoreError(f"{shown(url)}: no such store. Make one with `hpo init` or `hpo run`, or fix --storage.")
    if path.is_dir():
        raise StoreError(f"{shown(url)}: must be a file, got a folder. Choose another --storage.")
    kind = filesystem_of(path)
    if kind in NETWORK_FILESYSTEMS:
        raise StoreError(
            f"{shown(url)}: SQLite must lie on a local disk, got {kind}: several machines would damage the file. "
            "Use a local path, or Postgres."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise StoreError(f"{shown(url)}: cannot be written: {error.strerror}. Choose another --storage.") from error


def filesystem_of(path: Path) -> str:
    """Return the type of the filesystem that holds a path; empty where the system does not say."""
    mounts, best = Path("/proc/mounts"), ("", "")
    if not mounts.exists():
        return ""
    target = path.resolve()
    for line in mounts.read_text().splitlines():
        point, kind = line.split()[1:3]
        if target.is_relative_to(point.replace("\\040", " ")) and len(point) >= len(best[0]):
            best = point, kind
    return best[1]
