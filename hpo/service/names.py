"""Names of what exists, for shell completion: quick to ask for."""

from hpo import documents
from hpo.data.registry import known
from hpo.documents import Kind
from hpo.errors import HpoError
from hpo.store import studies
from hpo.store.database.connect import exists, open_store
from hpo.store.database.url import configured


def document_names(kind: Kind) -> list[str]:
    """Return the names of all spaces or recipes."""
    return sorted(documents.known(kind))


def data_names() -> list[str]:
    """Return the names of all known data sets."""
    return known()


def study_names(storage: str | None = None) -> list[str]:
    """Return the names of a store's studies; none if the store is missing or cannot be read."""
    try:
        url = configured(storage)
        if not exists(url):
            return []
        store = open_store(url)
        with store.read() as connection:
            names = studies.names(connection)
        store.dispose()
    except (HpoError, OSError):
        return []
    return names
