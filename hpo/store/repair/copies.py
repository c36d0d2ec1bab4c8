"""A copy of a store before it is mended, and what can be read of a damaged SQLite file."""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from hpo.errors import StoreError, StoreUnavailableError
from hpo.store.database import creation
from hpo.store.database.connect import Store
from hpo.store.database.engine import LOCK_SECONDS, make_engine
from hpo.store.database.url import shown

MOST_FAILED = 2000
"""Attempts to read a table that may fail: one damaged page costs some forty."""


def copy_store(store: Store) -> str:
    """Copy a store; return where: a file beside an SQLite file, a schema of a Postgres database.

    Raises: StoreError if it cannot be copied.
    """
    stamp = f"{datetime.now():%Y%m%dT%H%M%S}"
    try:
        return _copy_file(store, stamp) if store.is_sqlite else _copy_schema(store, f"before_repair_{stamp.lower()}")
    except (OSError, sa.exc.SQLAlchemyError) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise StoreError(f"{shown(store.url)}: cannot be copied: {reason}. Nothing was changed.") from error


def _copy_file(store: Store, stamp: str) -> str:
    path = Path(str(store.url.database))
    target = path.with_name(f"{path.name}.before-repair-{stamp}")
    if target.exists():
        raise StoreError(f"{target}: exists already. Try again.")
    try:
        with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
    except sqlite3.Error:  # damaged: its files as they are
        target.unlink(missing_ok=True)
        shutil.copyfile(path, target)
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", f"{target}{suffix}")
    return str(target)


def _copy_schema(store: Store, name: str) -> str:
    with store.write() as connection:
        inspector = sa.inspect(connection)
        public = inspector.default_schema_name
        connection.execute(sa.schema.CreateSchema(name))
        quote = connection.dialect.identifier_preparer.quote
        for table in inspector.get_table_names():
            to, source = f"{quote(name)}.{quote(table)}", f"{quote(str(public))}.{quote(table)}"
            connection.execute(sa.text(f"CREATE TABLE {to} AS TABLE {source}"))
    return f"schema {name}"


def file_faults(store: Store) -> list[str]:
    """Return what SQLite's own check finds in a file, at most ten lines; nothing for Postgres."""
    if not store.is_sqlite:
        return []
    try:
        with contextlib.closing(sqlite3.connect(str(store.url.database), timeout=LOCK_SECONDS)) as raw:
            lines = [str(row[0]) for row in raw.execute("PRAGMA integrity_check(10)")]
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise StoreUnavailableError(f"{shown(store.url)}: does not answer: {error}. Try again.") from error
        lines = [str(error)]
    return [" ".join(line.split()) for line in lines if line != "ok"]


def mend_file(store: Store) -> int:
    """Mend a damaged SQLite file: its indexes are built anew or, where that does not help, all rows that can be read
    are moved into a new file. Returns how many rows were moved; 0 where the file could be kept.

    Raises: StoreError if nothing can be read; then the file is as it was.
    """
    store.dispose()
    path = Path(str(store.url.database))
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("REINDEX")
        raw.commit()
    if not file_faults(store):
        return 0
    new = path.with_name(f".{path.name}.new")
    for suffix in ("", "-wal", "-shm"):
        Path(f"{new}{suffix}").unlink(missing_ok=True)
    engine = make_engine(store.url.set(database=str(new)))
    creation.create_tables(engine)
    engine.dispose()
    try:
        moved = _move_rows(path, new)
        if not moved:
            raise StoreError(f"{shown(store.url)}: nothing can be read. Restore a backup.")
    except BaseException:
        for suffix in ("", "-wal", "-shm", ".init.lock"):
            Path(f"{new}{suffix}").unlink(missing_ok=True)
        raise
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    new.replace(path)
    Path(f"{new}.init.lock").unlink(missing_ok=True)
    return moved


def _move_rows(source: Path, target: Path) -> int:
    moved = 0
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
        old.text_factory = bytes
        for (table,) in new.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = [row[1] for row in new.execute(f"PRAGMA table_info({table})")]
            names = ", ".join(columns)
            rows = list(_readable(old, table, names))
            if rows:  # else what was made with the tables stays: their versions
                new.execute(f"DELETE FROM {table}")
            insert = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})"
            for row in rows:
                moved += new.execute(insert, [_text(value) for value in row]).rowcount
        new.commit()
        new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return moved


def _text(value: object) -> object:
    """Return text as text; what is no UTF-8 stays bytes, and is found as a broken cell."""
    if not isinstance(value, bytes):
        return value
    with contextlib.suppress(UnicodeDecodeError):
        return value.decode()
    return value


def _readable(old: sqlite3.Connection, table: str, names: str) -> Iterator[tuple[object, ...]]:
    """Yield the rows of a table that can be read, in ranges of ids that are halved where reading fails."""
    try:
        first, last = old.execute(f"SELECT min(rowid), max(rowid) FROM {table}").fetchone()
    except sqlite3.Error:
        first, last = 0, 2**20  # an end of the tree cannot be read
    if first is None:
        return
    ranges, failed = [(first, last)], 0
    while ranges and failed < MOST_FAILED:
        low, high = ranges.pop()
        try:
            rows = old.execute(f"SELECT {names} FROM {table} WHERE rowid BETWEEN ? AND ?", (low, high)).fetchall()
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_NOTADB:
                return
            failed += 1
            if low < high:
                middle = (low + high) // 2
                ranges += [(middle + 1, high), (low, middle)]
            continue
        yield from rows
