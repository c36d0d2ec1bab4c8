"""Stores, opened: short transactions on one database."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from hpo.errors import StoreError, StoreUnavailableError
from hpo.store.database import creation, damage, schema, upgrade
from hpo.store.database.engine import WRITES, make_engine
from hpo.store.database.outages import is_transient, reason
from hpo.store.database.sqlite_file import check_file
from hpo.store.database.url import shown

_opened: dict[URL, None] = {}
"""The stores that this process has opened, the latest last."""


class Store:
    """An open store."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.engine = make_engine(url)
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._upgraded = False
        _opened.pop(url, None)
        _opened[url] = None

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads.

        Raises: StoreError where something fails because the store is damaged, or will not pass by waiting.
        """
        with self._explaining(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that writes; on SQLite it holds the write lock from its beginning.

        The first one upgrades a store of an earlier hpo. Raises: StoreError, as `read` does, or if that cannot be.
        """
        if not self._upgraded:
            with self._explaining():
                upgrade.upgrade(self.engine)
            self._upgraded = True
        with (
            self._explaining(),
            self.engine.connect().execution_options(**{WRITES: True}) as connection,
            connection.begin(),
        ):
            yield connection

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:  # a name that is taken; callers tell it
            raise
        except Exception as error:
            explained = damage.explain(self.engine, error)
            if explained is None:
                raise
            raise explained from error

    def insert(self, table: sa.Table) -> Any:
        """Return an INSERT of this database's dialect, which knows ON CONFLICT."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def lock_study(self, connection: Connection, study_id: int) -> None:
        """Make other claims on a study wait until this transaction ends; Optuna locks the same row.

        Raises: StoreError if the study has been deleted.
        """
        row = sa.select(schema.studies.c.study_id).where(schema.studies.c.study_id == study_id).with_for_update()
        if connection.execute(row).first() is None:
            raise StoreError(f"{shown(self.url)}: the study has been deleted.")

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def open_store(url: URL, *, create: bool = False) -> Store:
    """Open a store; with `create`, make the file and tables that are missing.

    Raises: StoreError if it is missing (without `create`), cannot be reached, lies on a network
    filesystem, or was made by a version that does not fit.
    """
    if url.get_backend_name() == "sqlite":
        check_file(url, create=create)
    store = Store(url)
    try:
        revisions = creation.read_revisions(store.engine)
        if create and None in revisions:
            creation.create_tables(store.engine)
            revisions = creation.read_revisions(store.engine)
    except SQLAlchemyError as error:
        raise _cannot_open(url, error) from error
    creation.check_revisions(url, revisions)
    return store


def exists(url: URL) -> bool:
    """Say whether a store exists, with all its tables. Raises: StoreError if that cannot be found out."""
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        return False
    store = Store(url)
    try:
        return None not in creation.read_revisions(store.engine)
    except SQLAlchemyError as error:
        raise _cannot_open(url, error) from error
    finally:
        store.dispose()


def check_store(url: URL) -> None:
    """Raise what `open_store` would, for those who connect by other means. Raises: StoreError."""
    open_store(url).dispose()


def explain(error: Exception) -> StoreError | None:
    """Return what is the matter with a store that this process has opened, if an error comes from that.

    The latest is examined first; a file that is no longer there is not examined.
    """
    if isinstance(error, SQLAlchemyError) and is_transient(error):
        where = ", ".join(sorted(map(shown, _opened)))
        return StoreUnavailableError(f"{where}: does not answer: {reason(error)}. Try again.")
    existing = (u for u in reversed(_opened) if u.get_backend_name() != "sqlite" or Path(str(u.database)).exists())
    return next(filter(None, (damage.explain(make_engine(url), error, (Exception,)) for url in existing)), None)


def _cannot_open(url: URL, error: SQLAlchemyError) -> StoreError:
    if is_transient(error) and url.get_backend_name() == "sqlite":
        return StoreUnavailableError(f"{shown(url)}: does not answer: {reason(error)}. Try again.")
    damaged = damage.of_file(url, error)
    return damaged or StoreError(f"{shown(url)}: cannot be opened: {reason(error)}. Is the address right?")
