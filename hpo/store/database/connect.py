"""Connections to a store: how each database must be spoken to so that many processes can share it.

SQLite: write-ahead log, so that readers and the one writer do not wait for each other; `synchronous=NORMAL`,
which survives the death of any process (a power cut may cost the last transactions, never the file); a busy
timeout of a minute; and `BEGIN IMMEDIATE` for whatever writes, because SQLite knows no `SELECT ... FOR UPDATE`.
Postgres: connections checked before use, UTC, keepalives, a pool for two threads.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import filelock
import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from hpo.errors import StoreError
from hpo.store.database import schema
from hpo.store.database.url import shown

T = TypeVar("T")

NETWORK_FILESYSTEMS = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "fuse.sshfs", "fuse.glusterfs")
)
OUTAGE_PATIENCE = 600.0
"""Seconds for which a store may be away before a worker gives up."""
_SQLITE_TIMEOUT = 60.0
_POSTGRES_LOCK = 0x68706F  # "hpo", for pg_advisory_lock


class Store:
    """An open store: short transactions, retried by those who may wait for a store that is away."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.engine = _engine(url)
        self.is_sqlite = url.get_backend_name() == "sqlite"

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that writes; on SQLite it holds the write lock from its beginning."""
        with self.engine.connect().execution_options(hpo_writes=True) as connection, connection.begin():
            yield connection

    def insert(self, table: sa.Table) -> Any:
        """Return an INSERT of this database's dialect, which knows ON CONFLICT."""
        from sqlalchemy.dialects import postgresql, sqlite

        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def lock_study(self, connection: Connection, study_id: int) -> None:
        """Keep other claims on a study waiting until this transaction ends; Optuna locks the same row.

        Raises: StoreError if the study is gone.
        """
        row = sa.select(schema.studies.c.study_id).where(schema.studies.c.study_id == study_id).with_for_update()
        if connection.execute(row).first() is None:
            raise StoreError(f"{shown(self.url)}: the study has been deleted.")

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def is_transient(error: BaseException) -> bool:
    """Say whether an error means that the store is away or busy, and that waiting may help."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    text = str(error.orig).lower()
    permanent = ("no such table", "no such column", "readonly", "read-only", "authentication failed", "does not exist")
    return not any(words in text for words in permanent)


def patiently(action: Callable[[], T], stopped: threading.Event | None = None, patience: float = OUTAGE_PATIENCE) -> T:
    """Do something with a store, again and again with back-off while the store is away.

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
    """Return what a database said, in one line and without the statement."""
    original = getattr(error, "orig", None) or error
    lines = [line.strip() for line in str(original).splitlines() if line.strip()]
    return lines[0] if lines else type(original).__name__


def open_store(url: URL, create: bool = False) -> Store:
    """Open a store; with `create`, make the file and tables that are missing.

    Raises: StoreError if it is not there (without `create`), cannot be reached, lies on a network
    filesystem, or was made by a version that does not fit.
    """
    if url.get_backend_name() == "sqlite":
        _check_file(url, create)
    store = Store(url)
    try:
        found = _revisions(store)
        if create and None in found:
            with _alone(store):
                _create_tables(store)
            found = _revisions(store)
    except SQLAlchemyError as error:
        raise StoreError(f"{shown(url)}: cannot be opened: {reason(error)}. Is the address right?") from error
    _check_revisions(url, *found)
    return store


def exists(url: URL) -> bool:
    """Say whether a store is there, whole. Raises: StoreError if that cannot be found out."""
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        return False
    store = Store(url)
    try:
        return None not in _revisions(store)
    except SQLAlchemyError as error:
        raise StoreError(f"{shown(url)}: cannot be opened: {reason(error)}. Is the address right?") from error
    finally:
        store.dispose()


def check_store(url: URL) -> None:
    """Raise what `open_store` would: for those who connect by other means. Raises: StoreError."""
    open_store(url).dispose()


class SharedConnection(sqlite3.Connection):
    """A connection to an SQLite file that many processes share."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.execute("PRAGMA journal_mode=WAL").fetchall()
        self.execute("PRAGMA synchronous=NORMAL")


class ReadingConnection(SharedConnection):
    """A connection over which nothing can be written."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.execute("PRAGMA query_only=ON")


def engine_arguments(url: URL, read_only: bool = False) -> dict[str, Any]:
    """Return what SQLAlchemy's `create_engine` is to be told for a store."""
    if url.get_backend_name() == "sqlite":
        return {
            "connect_args": {
                "timeout": _SQLITE_TIMEOUT,
                "factory": ReadingConnection if read_only else SharedConnection,
            }
        }
    return {
        "pool_size": 2,
        "max_overflow": 2,
        "pool_pre_ping": True,
        "pool_recycle": 1800,
        "connect_args": {
            "connect_timeout": 10,
            "options": "-c timezone=UTC" + (" -c default_transaction_read_only=on" if read_only else ""),
            "application_name": "hpo",
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        },
    }


def _engine(url: URL) -> Engine:
    engine = sa.create_engine(url, **engine_arguments(url))
    if url.get_backend_name() == "postgresql":
        return engine

    @sa.event.listens_for(engine, "connect")
    def _settings(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("hpo_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _check_file(url: URL, create: bool) -> None:
    path = Path(str(url.database))
    if not path.exists() and not create:
        raise StoreError(f"{shown(url)}: no such store. Make one with `hpo init` or `hpo run`, or mend --storage.")
    if path.is_dir():
        raise StoreError(f"{shown(url)}: must be a file, got a folder. Choose another --storage.")
    kind = _filesystem(path)
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


def _filesystem(path: Path) -> str:
    """Return the type of the filesystem that holds a path; empty where the system does not tell."""
    mounts, best = Path("/proc/mounts"), ("", "")
    if not mounts.exists():
        return ""
    target = path.resolve()
    for line in mounts.read_text().splitlines():
        point, kind = line.split()[1:3]
        if target.is_relative_to(point.replace("\\040", " ")) and len(point) >= len(best[0]):
            best = point, kind
    return best[1]


def _revisions(store: Store) -> tuple[str | None, int | None]:
    """Return the revisions of Optuna's tables and of ours; None where there are none."""
    with store.read() as connection:
        names = set(sa.inspect(connection).get_table_names())
        optuna = hpo = None
        if "alembic_version" in names:
            optuna = connection.execute(sa.select(schema.alembic_version.c.version_num)).scalar()
        if "hpo_schema" in names:
            hpo = connection.execute(sa.select(schema.hpo_schema.c.revision)).scalar()
    return optuna, hpo


def _check_revisions(url: URL, optuna: str | None, hpo: int | None) -> None:
    if optuna is None or hpo is None:
        raise StoreError(f"{shown(url)}: has no tables of ours. Make them with `hpo init`, or mend --storage.")
    if optuna != schema.OPTUNA_REVISION:
        raise StoreError(
            f"{shown(url)}: Optuna's tables must have revision {schema.OPTUNA_REVISION}, got {optuna}. "
            "Bring them up to date with `optuna storage upgrade --storage URL`, or upgrade hpo."
        )
    if hpo > schema.HPO_REVISION:
        raise StoreError(
            f"{shown(url)}: was made by a newer hpo (tables {hpo}, known {schema.HPO_REVISION}). Upgrade hpo."
        )


@contextlib.contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Let one process at a time make tables: without it most of several that start together die."""
    if store.is_sqlite:
        with filelock.FileLock(f"{store.url.database}.init.lock"):
            yield
        return
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.select(sa.func.pg_advisory_lock(_POSTGRES_LOCK)))
        try:
            yield
        finally:
            connection.execute(sa.select(sa.func.pg_advisory_unlock(_POSTGRES_LOCK)))


def _create_tables(store: Store) -> None:
    from optuna.storages import RDBStorage

    storage = RDBStorage(store.url.render_as_string(hide_password=False))
    storage.remove_session()
    storage.engine.dispose()
    with store.write() as connection:
        schema.hpo_tables.create_all(connection)
        schema.trials_by_state.create(connection, checkfirst=True)
        if connection.execute(sa.select(schema.hpo_schema)).first() is None:
            connection.execute(sa.insert(schema.hpo_schema).values(revision=schema.HPO_REVISION))
