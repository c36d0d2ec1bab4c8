"""Python code of the user's own: networks and spaces as functions in a file.

A study or model folder only says which code it needs: the file's name, the function's, and the SHA-256 of the
source. It runs only if the user named that very source in this session: by a space document of theirs, by `--python`,
or in the environment variable HPO_PYTHON. So nobody's store or folder can have code run.
"""

import importlib.util
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from hpo import files
from hpo.errors import DocumentError, ModelError, UsageError

NAMED = "HPO_PYTHON"
"""Files that the user has named; worker processes inherit it."""


def allow(path: Path) -> str:
    """Let the code of a file run; return its SHA-256. Raises: UsageError if it cannot be read."""
    digest = digest_of(path)
    named = [entry for entry in os.environ.get(NAMED, "").split(os.pathsep) if entry]
    whole = str(path.absolute())
    if whole not in named:
        os.environ[NAMED] = os.pathsep.join([*named, whole])
    return digest


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file. Raises: UsageError if it cannot be read."""
    try:
        return files.sha256(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}. Name a Python file.") from error


def named_in(reference: str, folder: Path, where: str) -> dict[str, str]:
    """Return what a document's `file.py:function` becomes in a study: the name and the source's SHA-256.

    The file is looked up beside the document, and allowed to run. Raises: DocumentError.
    """
    file, _, function = reference.rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        raise DocumentError(f'{where}: python: must be FILE.py:FUNCTION, got "{reference}".')
    path = folder / file
    if not path.is_file():
        raise DocumentError(f"{where}: python: {path}: no such file. Paths count from the document's folder.")
    return {"python": f"{path.name}:{function}", "digest": allow(path)}


def path_of(reference: str, digest: str) -> Path:
    """Return the file of code that the user has named. Raises: UsageError if none of theirs is this source."""
    for entry in os.environ.get(NAMED, "").split(os.pathsep):
        if entry and Path(entry).is_file() and digest_of(Path(entry)) == digest:
            return Path(entry)
    file = reference.rpartition(":")[0]
    raise UsageError(
        f"{reference}: is Python code (SHA-256 {digest[:16]}...) and runs only if you name it. Add --python {file}, "
        "the unchanged file."
    )


@cache
def load_function(reference: str, digest: str) -> Callable[..., Any]:
    """Return the function that a study needs. Raises: UsageError if it was not named, ModelError if it fails."""
    path = path_of(reference, digest)
    name, function = f"hpo_own_{digest[:16]}", reference.rpartition(":")[2]
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        sys.path.insert(0, str(path.parent))  # for what it imports from beside it
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[name]
            if not isinstance(error, Exception):
                raise
            raise ModelError(f"{path}: cannot be imported: {one_line(error)}. Mend it.") from error
        finally:
            sys.path.remove(str(path.parent))
    found = getattr(sys.modules[name], function, None)
    if not callable(found):
        raise ModelError(f"{path}: must have a function {function}, got none. Mend the name in the space.")
    result: Callable[..., Any] = found
    return result


def one_line(error: Exception) -> str:
    """Return an exception of the user's code in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
