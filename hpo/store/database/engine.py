"""SQLAlchemy engines for stores: how each database is configured so that many processes can share it.

SQLite: write-ahead log, so that readers and the one writer do not wait for each other; `synchronous=NORMAL`,
which survives the death of any process (a power cut may cost the last transactions, never the file); a busy
timeout; and `BEGIN IMMEDIATE` for every transaction that writes, because SQLite has no
`SELECT ... FOR UPDATE`. Postgres: connections checked before use, UTC, keepalives, and one connection that is kept.
"""

import sqlite3
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine

WRITES = "hpo_writes"
"""Execution option of a connection whose transaction writes."""
LOCK_SECONDS = 5.0
"""Longest wait for a lock that another process holds; workers try again, a command says that the store is busy."""


class SharedConnection(sqlite3.Connection):
    """A connection to an SQLite file that many processes share."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.execute("PRAGMA journal_mode=WAL").fetchall()
        self.execute("PRAGMA synchronous=NORMAL")


class ReadingConnection(SharedConnection):
    """A connection that cannot write."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.execute("PRAGMA query_only=ON")


def engine_arguments(url: URL, *, read_only: bool = False) -> dict[str, Any]:
    """Return the arguments of SQLAlchemy's `create_engine` for a store."""
    if url.get_backend_name() == "sqlite":
        return {
            "connect_args": {
                "timeout": LOCK_SECONDS,
                "factory": ReadingConnection if read_only else SharedConnection,
            }
        }
    return {
        "pool_size": 1,  # a worker's two threads seldom meet; Postgres has 100 connections unless told otherwise
        "max_overflow": 3,
        "pool_pre_ping": True,
        "pool_recycle": 1800,
        "connect_args": {
            "connect_timeout": 5,
            "options": f"-c timezone=UTC -c lock_timeout={LOCK_SECONDS:.0f}s"
            + (" -c default_transaction_read_only=on" if read_only else ""),
            "application_name": "hpo",
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        },
    }


def make_engine(url: URL) -> Engine:
    """Return an engine for a store."""
    engine = sa.create_engine(url, **engine_arguments(url))
    if url.get_backend_name() == "postgresql":
        return engine

    @sa.event.listens_for(engine, "connect")
    def _settings(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # BEGIN is sent below

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
