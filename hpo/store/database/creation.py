"""The tables of a store: their revisions, and their creation by one process at a time."""

import contextlib
from collections.abc import Iterator

import filelock
import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine

from hpo.errors import StoreError, StoreUnavailableError
from hpo.store.database import schema
from hpo.store.database.engine import LOCK_SECONDS, WRITES
from hpo.store.database.url import shown

_POSTGRES_LOCK = 0x68706F  # "hpo", for pg_advisory_lock

Revisions = tuple[str | None, int | None]
"""Revisions of Optuna's tables and of hpo's; None where there are none."""


def read_revisions(engine: Engine) -> Revisions:
    """Return the revisions of the tables in a store. Raises: SQLAlchemyError."""
    with engine.connect() as connection, connection.begin():
        names = set(sa.inspect(connection).get_table_names())
        optuna = hpo = None
        if "alembic_version" in names:
            optuna = connection.execute(sa.select(schema.alembic_version.c.version_num)).scalar()
        if "hpo_schema" in names:
            hpo = connection.execute(sa.select(schema.hpo_schema.c.revision)).scalar()
    return optuna, hpo


def check_revisions(url: URL, revisions: Revisions) -> None:
    """Check that this version of hpo can use the tables. Raises: StoreError."""
    optuna, hpo = revisions
    if optuna is None or hpo is None:
        raise StoreError(f"{shown(url)}: has no tables of hpo. Make them with `hpo init`, or fix --storage.")
    if optuna != schema.OPTUNA_REVISION:
        raise StoreError(
            f"{shown(url)}: Optuna's tables must have revision {schema.OPTUNA_REVISION}, got {optuna}. "
            "Bring them up to date with `optuna storage upgrade --storage URL`, or upgrade hpo."
        )
    if hpo > schema.HPO_REVISION:
        raise StoreError(
            f"{shown(url)}: was made by a newer hpo (tables {hpo}, known {schema.HPO_REVISION}). Upgrade hpo."
        )


def create_tables(engine: Engine) -> None:
    """Create the tables that are missing, while no other process does. Raises: SQLAlchemyError."""
    from optuna.storages import RDBStorage

    with lock(engine):
        if None not in read_revisions(engine):  # others wait for this lock: of many that start at once, one makes them
            return
        storage = RDBStorage(engine.url.render_as_string(hide_password=False))
        storage.remove_session()
        storage.engine.dispose()
        with engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
            schema.hpo_tables.create_all(connection)
            schema.trials_by_state.create(connection, checkfirst=True)
            if connection.execute(sa.select(schema.hpo_schema)).first() is None:
                connection.execute(sa.insert(schema.hpo_schema).values(revision=schema.HPO_REVISION))


@contextlib.contextmanager
def lock(engine: Engine) -> Iterator[None]:
    """Let one process at a time create or upgrade tables: without this, most of several that start together fail."""
    if engine.url.get_backend_name() == "sqlite":
        try:
            held = filelock.FileLock(f"{engine.url.database}.init.lock").acquire(timeout=LOCK_SECONDS)
        except filelock.Timeout:
            where = shown(engine.url)
            raise StoreUnavailableError(f"{where}: another process makes or upgrades its tables. Try again.") from None
        with held:
            yield
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.select(sa.func.pg_advisory_lock(_POSTGRES_LOCK)))
        try:
            yield
        finally:
            connection.execute(sa.select(sa.func.pg_advisory_unlock(_POSTGRES_LOCK)))
