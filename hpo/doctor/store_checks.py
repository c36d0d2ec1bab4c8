"""A store examined cell by cell and file by file, and mended on request."""

from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL

from hpo.artifacts import configured_root
from hpo.doctor.findings import Finding, failure, ok, warning
from hpo.doctor.store_files import find_file_faults
from hpo.store.database import schema
from hpo.store.database.connect import Store, open_store
from hpo.store.database.url import configured, shown
from hpo.store.repair.copies import file_faults
from hpo.store.repair.store_repair import examine, repair

UNREADABLE = "One that cannot be read costs its trial the epochs so far, and nothing else."
FOREIGN = "Delete it if no other store has its files there."


def check_whole_store(storage: str | None, *, mend: bool) -> Iterator[Finding]:
    """Yield what is wrong with a store and its files; with `mend`, mend it after a copy and yield what was done.

    Raises: StoreError for a store that is missing or not hpo's, or at which workers are while it is to be mended.
    """
    url = configured(storage)
    store = _opened(url)
    if mend:
        done = repair(store)
        left = done.left
        if done.copy:
            yield ok("store", f"{shown(url)} was copied to {done.copy} before it was changed")
        for fault in done.mended:
            yield _mended("store", fault.text, fault.mending)
        if done.moved_rows:
            yield warning("store", f"{done.moved_rows} rows were moved into a new file", "Others may be lost.")
    else:
        left = examine(store)
    for fault in left:
        yield failure("store", fault.text, _remedy(fault.mending))
    if left:
        return
    store = open_store(url)
    with store.read() as connection:
        studies, trials = (
            connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in (schema.studies, schema.trials)
        )
    yield ok("store", f"{shown(url)}: all rows of {studies} studies and {trials} trials are sound")
    yield from _check_files(store, mend=mend)


def _opened(url: URL) -> Store:
    """Return a store, also one whose file is damaged. Raises: StoreError."""
    if url.get_backend_name() == "sqlite" and Path(str(url.database)).is_file():
        store = Store(url)
        if file_faults(store):
            return store
    return open_store(url)


def _check_files(store: Store, *, mend: bool) -> Iterator[Finding]:
    if "://" in (root := configured_root(store.url)):
        yield warning("files", f"{root}: checkpoints there are not examined", UNREADABLE)
        return
    sound = True
    for fault in list(find_file_faults(store)):
        sound = False
        if not fault.mending:
            yield warning("files", fault.text, FOREIGN)
        elif mend and fault.mend is not None:
            fault.mend()
            yield _mended("files", fault.text, fault.mending)
        else:
            yield failure("files", fault.text, _remedy(fault.mending))
    if sound:
        yield ok("files", "every file belongs to a study and can be read")


def _mended(check: str, text: str, mending: str) -> Finding:
    return warning(check, f"mended: {text}", f"Now {mending}.")


def _remedy(mending: str) -> str:
    return f"`hpo doctor store --repair`: {mending}." if mending else "Restore a backup."
