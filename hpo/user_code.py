"""Python code of the user: networks and spaces as functions in a file.

A study or model folder only says which code it needs: the file's name, the function's name, and the SHA-256 of the
source. The code runs only if the user named that very source in this session: by the path of a space document on the
command line or in the Python interface, by `--python`, or in the environment variable HPO_PYTHON. So nobody's store or
folder can make code run. Reading a document grants nothing by itself: the caller says so (`trust`).

What is hashed and what runs are the same bytes, read once; compiled files (.pyc) are not looked at. What the code
imports from its own folder is trusted with it.
"""

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, MutableMapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from hpo.errors import DocumentError, ModelError, UsageError

NAMED = "HPO_PYTHON"
"""Environment variable with the files that the user has named."""


class TrustedCode:
    """The files whose code may run, kept in an environment, so that processes started with it inherit them."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._environment = environment

    @property
    def paths(self) -> list[Path]:
        """The files that the user has named, in their order."""
        return [Path(entry) for entry in self._environment.get(NAMED, "").split(os.pathsep) if entry]

    def trust(self, path: Path) -> str:
        """Let the code of a file run; return its SHA-256. Raises: UsageError if it cannot be read."""
        digest = digest_of(path)
        absolute = path.absolute()
        if absolute not in self.paths:
            self._environment[NAMED] = os.pathsep.join(map(str, [*self.paths, absolute]))
        return digest

    def path_of(self, reference: str, digest: str) -> Path:
        """Return the named file that has this source. Raises: UsageError if there is none."""
        return self.source_of(reference, digest)[0]

    def source_of(self, reference: str, digest: str) -> tuple[Path, bytes]:
        """Return the named file that has this source, and the source: read once, it is what was hashed.

        Raises: UsageError if there is none.
        """
        for path in self.paths:
            source = _read(path) if path.is_file() else b""
            if source and _sha256(source) == digest:
                return path, source
        file = reference.rpartition(":")[0]
        raise UsageError(
            f"{reference}: is Python code (SHA-256 {digest[:16]}...) and runs only if you name it. "
            f"Add --python {file}, the unchanged file."
        )


SESSION = TrustedCode(os.environ)
"""What may run in this process and in the workers that it starts."""


def trust(path: Path) -> str:
    """Let the code of a file run in this session; return its SHA-256. Raises: UsageError if it cannot be read."""
    return SESSION.trust(path)


def source_of(reference: str, digest: str) -> tuple[Path, bytes]:
    """Return the file with this source that was named in this session, and the source. Raises: UsageError."""
    return SESSION.source_of(reference, digest)


def path_of(reference: str, digest: str) -> Path:
    """Return the file with this source that was named in this session. Raises: UsageError if there is none."""
    return SESSION.path_of(reference, digest)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file. Raises: UsageError if it cannot be read."""
    return _sha256(_read(path))


def _sha256(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}. Name a Python file.") from error


def resolve(reference: str, folder: Path, where: str) -> tuple[dict[str, str], Path]:
    """Return what a document's `file.py:function` becomes in a study - name and SHA-256 - and the file itself.

    The file is looked up beside the document; it is not trusted by that. Raises: DocumentError.
    """
    file, _, function = reference.rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        raise DocumentError(f'{where}: python: must be FILE.py:FUNCTION, got "{reference}".')
    path = folder / file
    if not path.is_file():
        raise DocumentError(f"{where}: python: {path}: no such file. Paths count from the document's folder.")
    return {"python": f"{path.name}:{function}", "digest": digest_of(path)}, path


@cache
def load_function(reference: str, digest: str) -> Callable[..., Any]:
    """Return the function that a study needs. Raises: UsageError if it was not named, ModelError if it fails."""
    path, source = source_of(reference, digest)
    name, function = f"hpo_user_code_{digest}", reference.rpartition(":")[2]
    if name not in sys.modules:
        module = ModuleType(name)
        module.__file__ = str(path)
        sys.modules[name] = module
        try:
            with _importing_from(path.parent):
                exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
        except BaseException as error:
            del sys.modules[name]
            if not isinstance(error, Exception):
                raise
            raise ModelError(f"{path}: cannot be imported: {one_line(error)}. Fix it.") from error
    loaded = getattr(sys.modules[name], function, None)
    if not callable(loaded):
        raise ModelError(f"{path}: must have a function {function}, got none. Correct the name in the space.")
    result: Callable[..., Any] = loaded
    return result


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Let code import from its own folder: sources alone, for compiled files there may hold other code."""
    before = sys.pycache_prefix, sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.pycache_prefix, sys.dont_write_bytecode = f"{os.devnull}/none", True
    try:
        yield
    finally:
        sys.pycache_prefix, sys.dont_write_bytecode = before
        sys.path.remove(str(folder))


def one_line(error: Exception) -> str:
    """Return an exception of the user's code in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
