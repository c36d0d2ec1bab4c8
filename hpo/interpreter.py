"""The Python interpreter: commands of child processes, and pauses of the garbage collector."""

import contextlib
import gc
import sys
from collections.abc import Iterator


def python(*arguments: str) -> list[str]:
    """Return the command that runs this Python with arguments, such as `-m hpo.plots`.

    Option -P: the working folder is not on the child's path, so that a torch.py which lies there is not imported.
    """
    return [sys.executable, "-P", *arguments]


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the cyclic garbage collector, of all threads, until the end of the block."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
