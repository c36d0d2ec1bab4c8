"""An outage of the store, as the supervisor of a run notices and tells it: away, busy, or without room on its disk."""

import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

from hpo.store.database import schema
from hpo.store.database.connect import Store
from hpo.store.leases import claims
from hpo.store.studies import StudyRecord

STILL_SECONDS = 2.0
"""Workers write once a second: where no beat has changed for so long, the supervisor tries to write itself."""
TOLD_SECONDS = 1.0
"""An outage is told once it has lasted so long."""
ROOM = 2**18
"""Bytes that must be free beside an SQLite file."""


class StoreOutage:
    """Finds out whether a study's store takes changes: a full disk is read from as ever, so no reader notices it."""

    def __init__(self, store: Store, study: StudyRecord) -> None:
        self.store, self.study = store, study
        self._beats: dict[str, int] = {}
        self._moved = time.monotonic()
        self._since: float | None = None
        self._told = False

    def probe(self) -> None:
        """Try to write, if no worker has written lately. Raises: SQLAlchemyError, StoreError, OSError."""
        with self.store.read() as connection:
            beats = claims.beats(connection, self.study.study_id)
        if beats != self._beats or not beats:
            self._beats, self._moved = beats, time.monotonic()
        if time.monotonic() - self._moved < STILL_SECONDS:
            return
        table = schema.hpo_studies
        with self.store.write() as connection:
            same = sa.update(table).where(table.c.study_id == self.study.study_id).values(revision=table.c.revision)
            connection.execute(same)
        if self.store.is_sqlite:  # the write-ahead log may have had room for that, but not for what workers write
            with tempfile.TemporaryFile(dir=Path(str(self.store.url.database)).parent) as room:
                room.write(bytes(ROOM))

    def note(self, reason: str) -> str:
        """Take why the store does not take changes now, empty if it does; return what is to be told, if anything."""
        if not reason:
            was_told, self._since, self._told = self._told, None, False
            return "the store answers again" if was_told else ""
        now = time.monotonic()
        self._since = self._since or now
        if self._told or now - self._since < TOLD_SECONDS:
            return ""
        self._told = True
        return f"the store takes no changes: {reason}; the workers continue and store their results once it does"
