"""Standard output and standard error on a full disk.

What cannot be printed on stdout is an error, as data would be lost. What cannot be printed on stderr is not: a search
whose log has no room goes on.
"""

import atexit
import contextlib
import errno
import os
import sys
from typing import Any, TextIO

FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))
"""Errors of a write for which there is no room, or whose terminal is gone."""


class PatientStream:
    """A text stream whose writes do not fail for lack of room: the text is written with a later one, or never."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        atexit.register(self._leave)

    def __getattr__(self, name: str) -> Any:
        """Return what the stream has."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, if there is room."""
        try:
            return self._stream.write(text)
        except OSError as error:
            _check_full(error)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered, if there is room."""
        try:
            self._stream.flush()
        except OSError as error:
            _check_full(error)

    def _leave(self) -> None:
        # At the end Python flushes once more, and makes a failure the exit code 120.
        try:
            self._stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):  # it is closed, or no file
                discard(self._stream)


def _check_full(error: OSError) -> None:
    if error.errno not in FULL:
        raise error


def flush_output() -> None:
    """Write what is buffered for stdout. Raises: OSError."""
    if sys.stdout is not None:  # None in a process that was started without
        sys.stdout.flush()


def discard(stream: TextIO) -> None:
    """Let what is written to a stream vanish, with what is buffered."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
