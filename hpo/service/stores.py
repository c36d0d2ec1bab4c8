"""Stores by their URL: opened, created, named for people."""

from dataclasses import dataclass

from hpo.store.database import connect
from hpo.store.database.connect import Store, exists, explain
from hpo.store.database.url import configured, shown

__all__ = ["CreatedStore", "Store", "create_store", "explain", "open_store", "store_name"]


@dataclass(frozen=True)
class CreatedStore:
    """A store that is ready for studies."""

    url: str
    """Its URL for people: without driver and password."""
    created: bool
    """Whether it was made now; False if it existed before."""


def open_store(storage: str | None = None, *, create: bool = False) -> Store:
    """Open the store of a URL, else of `HPO_STORAGE`, else the default one; with `create`, make it if it is missing.

    Raises: UsageError for a malformed URL, StoreError for a store that is missing or cannot be reached.
    """
    return connect.open_store(configured(storage), create=create)


def create_store(storage: str | None = None) -> CreatedStore:
    """Make a store if it is missing: the file, if it is SQLite, and the tables. Raises: UsageError, StoreError."""
    url = configured(storage)
    existed = exists(url)
    connect.open_store(url, create=True).dispose()
    return CreatedStore(shown(url), not existed)


def store_name(store: Store) -> str:
    """Return a store's URL for people: without driver and password."""
    return shown(store.url)
