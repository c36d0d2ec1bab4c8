"""Stores that are away: trying again until they answer."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from hpo.errors import StoreUnavailableError
from hpo.store.database.outages import is_transient, reason

T = TypeVar("T")

OUTAGE_PATIENCE = 600.0
"""Seconds for which a store may be away before a worker stops."""


def retry_while_unavailable(
    action: Callable[[], T], stopped: threading.Event | None = None, *, patience: float = OUTAGE_PATIENCE
) -> T:
    """Do something with a store, again with growing pauses (0.05 s to 2 s) while the store is away.

    Raises: StoreError after `patience` seconds, once `stopped` is set while the store is away, or at once for an error
    that is not known to pass.
    """
    start, pause = time.monotonic(), 0.05
    while True:
        try:
            return action()
        except SQLAlchemyError as error:
            waited = time.monotonic() - start
            if not is_transient(error) or waited > patience or (stopped is not None and stopped.is_set()):
                tried = f"the store does not answer: {reason(error)} (tried for {waited:.0f} s)."
                raise StoreUnavailableError(tried) from error
            time.sleep(pause)
            pause = min(2 * pause, 2.0)
