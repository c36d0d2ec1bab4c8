"""Files: written whole or not at all, kept below their root, and known by the SHA-256 of their content."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from hpo.errors import HpoError
from hpo.machine import memory

MOST_BYTES = 5_000_000_000
"""No file of a study or model is larger: S3 takes no more at once. It is a checkpoint of 250 million weights in float32
with two moments each, their best and their averaged values."""


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; on success it replaces `path`, on an error it is removed.

    Missing folders are made. With `durable`, the content is on the disk before the old file is gone. A link is
    followed; what is no regular file (a device, a pipe) is yielded itself, for it cannot be replaced.
    Raises: OSError.
    """
    if path.exists() and (not path.is_file() or path.is_relative_to("/dev")):
        yield path
        return
    target = path.resolve() if path.is_symlink() else path
    target.parent.mkdir(parents=True, exist_ok=True)
    # No suffix of the target's: whoever lists *.safetensors must not see it.
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def under(root: Path, name: str) -> Path:
    """Return the path of a file or folder below `root`, by its relative name; it need not exist.

    `root` itself may be a link, nothing below it. This does not hold against a program that changes the folder at
    the same time. Raises: OSError for a name that leads out of `root`, and for a link on the way.
    """
    parts = name.split("/")
    if "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise OSError(f'{root}: names in it must be relative, without ".." and empty parts, got {name!r}')
    path = root
    for part in parts:
        path /= part
        if path.is_symlink():
            raise OSError(f"{path}: must not be a link: those are not followed below {root}. Remove it")
    return path


def most_bytes() -> int:
    """Return how many bytes are read of a file of a study or model: `MOST_BYTES`, or half of a smaller memory."""
    return min(MOST_BYTES, memory() // 2)


def too_large(most: int) -> str:
    """Return what is wrong with a file that has more bytes."""
    return f"must have at most {most / 1e9:.3g} GB, got more"


def read(path: Path) -> bytes:
    """Return the content of a file of at most `most_bytes`. Raises: OSError, also for a larger one."""
    most = most_bytes()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(f"{path}: {too_large(most)}. Delete it")
        return file.read(size)


def write(path: Path, content: bytes | str, *, durable: bool = False) -> None:
    """Put content in place, whole or not at all; text as UTF-8. Raises: OSError."""
    data = content.encode() if isinstance(content, str) else content
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(data)


def write_output(path: Path, content: bytes | str, option: str = "-o") -> None:
    """Write a file that the user asked for by an option. Raises: HpoError in one line, naming the option."""
    try:
        write(path, content)
    except OSError as error:
        reason = error.strerror or str(error)
        raise HpoError(f"{path}: cannot be written: {reason}. Choose another {option}.") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal. Raises: OSError."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
