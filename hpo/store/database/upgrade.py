"""A store of an earlier hpo, made the present one's before its first change: the earlier one refuses it from then on.

The tables are the same, but what is written into them is not: an earlier hpo would fail on it halfway, or take it for
something else. Reading upgrades nothing.

Workers of the earlier hpo do not look at the revision again. While one is at work, the upgrade is refused. One that
sleeps loses its registration, so that it writes nothing when it wakes; where it registers again, it fails on the
budget, which then has a key that it does not know.
"""

import contextlib
import json
import time
import uuid

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from hpo.errors import StoreError
from hpo.store.database import creation, schema
from hpo.store.database.engine import WRITES
from hpo.store.database.url import shown

_NEW_IN_BUDGET = {"revive": 0}
"""What revision 2 added to a study's budget, and its default."""


def upgrade(engine: Engine) -> None:
    """Bring a store up to the present revision.

    Raises: StoreError if it is that of a newer hpo, or if workers of the earlier one are at work; SQLAlchemyError.
    """
    creation.check_revisions(engine.url, creation.read_revisions(engine))
    with engine.connect() as connection, connection.begin():
        if connection.execute(sa.select(schema.hpo_schema.c.revision)).scalar() == schema.HPO_REVISION:
            return
        before = _beats(connection)
    if before:
        time.sleep(schema.WATCH_SECONDS)
    with (
        creation.lock(engine),
        engine.connect().execution_options(**{WRITES: True}) as connection,
        connection.begin(),
    ):
        table = schema.hpo_schema  # first: who registers meanwhile holds this row
        outdated = sa.update(table).where(table.c.revision < schema.HPO_REVISION)
        if connection.execute(outdated.values(revision=schema.HPO_REVISION)).rowcount == 0:
            return
        alive = sum(before.get(worker) != beat for worker, beat in _beats(connection).items())
        if alive:
            raise StoreError(
                f"{shown(engine.url)}: must be upgraded by this hpo, but {alive} worker(s) of an earlier one are at "
                "work. Stop them first, or go on with their version."
            )
        for worker in before:
            _deregister(connection, worker)
        _extend_budgets(connection)


def _beats(connection: Connection) -> dict[str, int]:
    workers = schema.hpo_workers.c
    return {row.worker_id: row.beat for row in connection.execute(sa.select(workers.worker_id, workers.beat))}


def _deregister(connection: Connection, worker: str) -> None:
    """Give a worker another id, whose beat stands still: others take its trials over, and it is known no longer."""
    other = uuid.uuid4().hex
    for table in (schema.hpo_workers, schema.hpo_leases):
        connection.execute(sa.update(table).where(table.c.worker_id == worker).values(worker_id=other))


def _extend_budgets(connection: Connection) -> None:
    table = schema.hpo_studies
    for study_id, text in connection.execute(sa.select(table.c.study_id, table.c.budget_json)).all():
        with contextlib.suppress(ValueError, TypeError):  # damage is named by what reads the budget
            budget = json.dumps(_NEW_IN_BUDGET | dict(json.loads(text)))
            connection.execute(sa.update(table).where(table.c.study_id == study_id).values(budget_json=budget))
