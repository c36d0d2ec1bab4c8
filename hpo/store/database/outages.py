"""Which errors of a database are known to pass by waiting; every other one is final."""

import sqlite3

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

_SQLITE_PASSING = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_FULL,
    )
)
"""Primary result codes."""
_SQLITE_DISK_FULL = frozenset(
    (
        sqlite3.SQLITE_IOERR_WRITE,  # a quota, or a limit on the size of files
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_TRUNCATE,
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_SHMMAP,
    )
)
"""Extended result codes of writes that fail where no room is left."""
_POSTGRES_PASSING = ("08", "53", "40", "55P03", "57014", "57P01", "57P02", "57P03", "58030")
"""SQLSTATEs, or their classes: connection, resources (53100: disk full), rollback, locks, shutdown and start."""
_NO_CONNECTION = (
    "connection refused",
    "connection reset",
    "connection timed out",
    "connection timeout",
    "connection is closed",
    "connection is lost",
    "connection is bad",
    "closed the connection",
    "connection to server was lost",
    "timeout expired",
    "starting up",
    "shutting down",
    "recovery mode",
    "not yet accepting",
    "terminating connection",
    "too many clients",
    "too many connections",
    "remaining connection slots",
    "could not receive data",
    "could not send data",
    "network is unreachable",
    "no route to host",
    "name resolution",
    "ssl syscall",
    "no such file or directory",  # the socket of a server that restarts
)
"""What drivers say without a code when a server does not answer."""


def is_transient(error: BaseException) -> bool:
    """Say whether an error means that the store is away, busy or full, and that waiting may help."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _SQLITE_PASSING or code in _SQLITE_DISK_FULL
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_POSTGRES_PASSING)
    text = str(error.orig).lower()
    return any(words in text for words in _NO_CONNECTION)


def is_full(error: BaseException) -> bool:
    """Say whether an error means that the store's disk has no room left."""
    original = getattr(error, "orig", None)
    code = getattr(original, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF == sqlite3.SQLITE_FULL or code in _SQLITE_DISK_FULL
    return getattr(original, "sqlstate", None) == "53100"


def reason(error: Exception) -> str:
    """Return the message of a database's or the system's error, in one line and without the statement."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    original = getattr(error, "orig", None) or error
    lines = [line.strip() for line in str(original).splitlines() if line.strip()]
    text = lines[0] if lines else type(original).__name__
    return f"{text} (its disk may be full)" if is_full(error) and "full" not in text else text
