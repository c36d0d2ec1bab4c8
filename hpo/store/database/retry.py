"""Stores that are away: which errors pass by waiting, and trying again until then."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from hpo.errors import StoreError

T = TypeVar("T")

OUTAGE_PATIENCE = 600.0
"""Seconds for which a store may be away before a worker stops."""


def is_transient(error: BaseException) -> bool:
    """Say whether an error means that the store is away or busy, and that waiting may help."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    text = str(error.orig).lower()
    permanent = ("no such table", "no such column", "readonly", "read-only", "authentication failed", "does not exist")
    return not any(words in text for words in permanent)


def retry_while_unavailable(
    action: Callable[[], T], stopped: threading.Event | None = None, *, patience: float = OUTAGE_PATIENCE
) -> T:
    """Do something with a store, again with growing pauses (0.05 s to 2 s) while the store is away.

    Raises: StoreError after `patience` seconds, or once `stopped` is set while the store is away.
    """
    start, pause = time.monotonic(), 0.05
    while True:
        try:
            return action()
        except SQLAlchemyError as error:
            waited = time.monotonic() - start
            if not is_transient(error) or waited > patience or (stopped is not None and stopped.is_set()):
                raise StoreError(f"the store does not answer: {reason(error)} (tried for {waited:.0f} s).") from error
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


def reason(error: SQLAlchemyError) -> str:
    """Return the message of a database's error, in one line and without the statement."""
    original = getattr(error, "orig", None) or error
    lines = [line.strip() for line in str(original).splitlines() if line.strip()]
    return lines[0] if lines else type(original).__name__
