"""Which worker may run which trial: claims under the study's lock, leases, and the trials of dead workers.

A claim counts finished trials and leases in the transaction that makes the new trial, so a budget is exact
over any number of workers, machines, kills and restarts: finished + leased never exceeds it.

A lease lasts as long as its worker's beat counter increases. Other workers watch it: a counter that did not change
for `GRACE_SECONDS` of the watcher's own monotonic clock, while the store answered, belongs to a dead worker. Clocks of
two machines are never compared. On one machine detection is faster: each worker holds a locked file, and the
operating system releases the lock when the worker dies.
"""

import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import filelock
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hpo.store.attributes import Entry
from hpo.store.database import schema, trial_rows
from hpo.store.database.conditions import count as count_rows
from hpo.store.database.conditions import is_of
from hpo.store.database.connect import Store
from hpo.store.database.trial_rows import insert_trials, set_state
from hpo.store.leases import second_chances, stopping
from hpo.store.leases.stopping import StopReason
from hpo.store.record import Failure, State, TrialAttributes

GRACE_SECONDS = 30.0
EXHAUSTED = "every configuration of the grid has been tried; a wider space gives more (hpo studies set-space)"
_WORKER_ID = re.compile("[0-9a-f]{32}")
MAX_DEATHS = 5
"""A trial whose worker died this often in the same epoch is not resumed again."""


@dataclass(frozen=True)
class Claimed:
    """A trial that this worker has leased."""

    trial_id: int
    number: int
    fresh: bool = False
    """Whether this claim created it: it has no parameters yet."""


@dataclass(frozen=True)
class NothingToClaim:
    """No trial can be claimed now, though the study is not over: other workers run the rest."""


def claim(
    store: Store,
    connection: Connection,
    study_id: int,
    worker_id: str,
    *,
    count: int,
    held: set[int],
    undrawn: Callable[[Connection], int | None] = lambda connection: None,
    promising: Callable[[Connection, int], list[int]] = lambda connection, most: [],
) -> list[Claimed] | NothingToClaim | StopReason:
    """Claim up to `count` trials, waiting ones first, within a transaction of the worker's.

    `held` are the trials that the worker knows it has leased: any further lease is a claim whose answer was lost.
    Under the study's lock, `undrawn` returns how many configurations are left to draw, None where there is no end, and
    `promising` the ids of at most so many pruned trials that deserve a second chance.
    """
    store.lock_study(connection, study_id)
    lost = [claimed for claimed in _leased(connection, worker_id) if claimed.trial_id not in held]
    if lost:
        return lost[:count]
    # Leases first: ends of trials do not wait for the lock, and one that ends in between must be counted at least once.
    leases = count_rows(connection, schema.hpo_leases.c.study_id == study_id)
    progress = stopping.progress(connection, study_id)
    if progress.over is not None:
        return progress.over
    left = progress.budget.trials - progress.finished - leases
    if left <= 0:
        return NothingToClaim()
    most = min(count, left)
    waiting = _waiting(connection, study_id, most)
    fresh = 0 if progress.budget.only_waiting else most - len(waiting)
    limit = undrawn(connection) if fresh else None
    if fresh:
        drawable = fresh if limit is None else min(fresh, limit)
        due = second_chances.due(
            connection, study_id, progress.budget, left=left - len(waiting), now=fresh, drawable=drawable
        )
        chosen = promising(connection, due) if due else []
        second_chances.add(store, connection, study_id, chosen)
        waiting = _waiting(connection, study_id, most) if chosen else waiting
        fresh = min(drawable, most - len(waiting))
    claimed = [Claimed(*each) for each in waiting]
    for each in claimed:
        set_state(store, connection, each.trial_id, State.RUNNING)
    made = insert_trials(store, connection, study_id, State.RUNNING, fresh)
    claimed += [Claimed(*each, fresh=True) for each in made]
    if not claimed and limit == 0 and leases == 0:
        return _end(connection, study_id, EXHAUSTED)
    if not claimed:
        return NothingToClaim()
    new_leases = [{"trial_id": c.trial_id, "study_id": study_id, "worker_id": worker_id} for c in claimed]
    connection.execute(sa.insert(schema.hpo_leases), new_leases)
    return claimed


def claimable(connection: Connection, study_id: int, *, draws: bool = True) -> int:
    """Return how many trials workers could claim now; without `draws` only those that wait are counted."""
    leases = count_rows(connection, schema.hpo_leases.c.study_id == study_id)
    progress = stopping.progress(connection, study_id)
    if progress.over is not None:
        return 0
    left = max(0, progress.budget.trials - progress.finished - leases)
    if draws and not progress.budget.only_waiting:
        return left
    return min(left, count_rows(connection, is_of(study_id, [State.WAITING])))


def _end(connection: Connection, study_id: int, reason: str) -> StopReason:
    table = schema.hpo_studies
    connection.execute(sa.update(table).where(table.c.study_id == study_id).values(stop_reason=reason))
    return StopReason(reason)


def _leased(connection: Connection, worker_id: str) -> list[Claimed]:
    leases = schema.hpo_leases
    query = (
        sa.select(schema.trials.c.trial_id, schema.trials.c.number)
        .join_from(leases, schema.trials, leases.c.trial_id == schema.trials.c.trial_id)
        .where(leases.c.worker_id == worker_id)
        .order_by(schema.trials.c.number)
    )
    return [Claimed(*row) for row in connection.execute(query)]


def _waiting(connection: Connection, study_id: int, count: int) -> list[tuple[int, int]]:
    columns = schema.trials.c
    query = sa.select(columns.trial_id, columns.number).where(is_of(study_id, [State.WAITING]))
    rows = connection.execute(query.order_by(columns.number).limit(count)).all()
    return [(row.trial_id, row.number) for row in rows]


def release(store: Store, connection: Connection, study_id: int, worker_id: str) -> int:
    """Release a worker's trials, which then wait to be resumed, and unregister the worker; return their number."""
    store.lock_study(connection, study_id)
    leased = _leased(connection, worker_id)
    for claimed in leased:
        set_state(store, connection, claimed.trial_id, State.WAITING)
    connection.execute(sa.delete(schema.hpo_workers).where(schema.hpo_workers.c.worker_id == worker_id))
    return len(leased)


def reap(store: Store, connection: Connection, study_id: int, worker_id: str, beat: int | None = None) -> list[int]:
    """Take over the trials of a dead worker: each fails and continues under a new number, which waits to be claimed.

    With `beat`, only if the worker's beat is still that one. Returns the numbers of the trials that failed.
    """
    store.lock_study(connection, study_id)
    workers = schema.hpo_workers
    same = workers.c.worker_id == worker_id
    if beat is not None:
        same = sa.and_(same, workers.c.beat == beat)
    if connection.execute(sa.delete(workers).where(same)).rowcount == 0:
        return []
    reaped = _leased(connection, worker_id)
    for claimed in reaped:
        _continue(store, connection, study_id, claimed)
    return [claimed.number for claimed in reaped]


def _continue(store: Store, connection: Connection, study_id: int, dead: Claimed) -> None:
    """Fail a dead worker's trial and, unless too many workers died of it, add the trial that continues it."""
    [trial] = trial_rows.load_some(connection, [dead.trial_id])
    attributes, epochs = TrialAttributes.of(trial), trial.last_step or 0
    resumed_at, deaths = attributes.resumed_at, (attributes.deaths or 0) + 1
    if resumed_at is None or epochs > resumed_at:
        deaths = 1
    changes = trial_rows.Changes()
    if deaths < MAX_DEATHS:
        entries = [
            *(Entry("system", key, value) for key, value in trial.system_attrs.items()),
            TrialAttributes.root.entry(trial_rows.root_of(trial)),
            TrialAttributes.continues.entry(dead.number),
            TrialAttributes.resumed_at.entry(epochs),
            TrialAttributes.deaths.entry(deaths),
        ]
        number = trial_rows.add_waiting(store, connection, study_id, trial, entries)
        message = f"its worker died after epoch {epochs}; trial {number} resumes it"
        changes.note(dead.trial_id, TrialAttributes.excused.entry(f"continued as trial {number}"))
    else:
        message = f"its workers died {deaths} times in epoch {epochs + 1}"
    changes.note(dead.trial_id, TrialAttributes.failure.entry(Failure("lost", message)))
    changes.states[dead.trial_id] = (State.FAIL, ())
    trial_rows.write(store, connection, changes)


class Presence:
    """A file that a worker keeps locked: whoever can lock it, on the same machine, knows that the worker is dead."""

    def __init__(self, worker_id: str) -> None:
        self.lock = filelock.FileLock(_presence_file(worker_id), thread_local=False)

    def __enter__(self) -> "Presence":
        self.lock.acquire(timeout=5)
        return self

    def __exit__(self, *_: object) -> None:
        path = Path(self.lock.lock_file)
        self.lock.release()
        path.unlink(missing_ok=True)


def _presence_file(worker_id: str) -> Path:
    return presence_folder() / f"{worker_id}.lock"


def presence_folder() -> Path:
    """Return the folder of the files that workers of this machine keep locked."""
    folder = Path(tempfile.gettempdir()) / f"hpo-workers-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def died_here(worker_id: str) -> bool:
    """Say whether a worker of this machine is dead; False for workers elsewhere, and for ids that hpo does not give."""
    if not isinstance(worker_id, str) or not _WORKER_ID.fullmatch(worker_id):  # another may have written the store
        return False
    path = _presence_file(worker_id)
    if not path.exists():
        return False
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (filelock.Timeout, OSError):
        return False
    lock.release()
    path.unlink(missing_ok=True)
    return True


class Watch:
    """Watches the beats of a study's workers and finds the dead ones."""

    def __init__(self, grace: float = GRACE_SECONDS) -> None:
        self.grace = grace
        self._seen: dict[str, tuple[int, float]] = {}

    @property
    def workers(self) -> int:
        """Number of workers seen at the last look."""
        return len(self._seen)

    def observe(self, beats: dict[str, int]) -> dict[str, int]:
        """Take the current beats of other workers; return those of the dead ones."""
        now = time.monotonic()
        self._seen = {
            worker: self._seen[worker] if worker in self._seen and self._seen[worker][0] == beat else (beat, now)
            for worker, beat in beats.items()
        }
        return {w: b for w, (b, since) in self._seen.items() if now - since > self.grace or died_here(w)}

    def reset(self) -> None:
        """Forget all beats: the store did not answer, so a beat that did not change proves nothing."""
        self._seen.clear()


def beats(connection: Connection, study_id: int) -> dict[str, int]:
    """Return the beat of each worker of a study."""
    workers = schema.hpo_workers.c
    rows = connection.execute(sa.select(workers.worker_id, workers.beat).where(workers.study_id == study_id))
    return {row.worker_id: row.beat for row in rows}


def reap_dead(store: Store, study_id: int, watch: Watch, except_for: str = "") -> list[int]:
    """Take over the trials of every dead worker, except for one; return the numbers of the trials."""
    with store.read() as connection:
        others = {worker_id: beat for worker_id, beat in beats(connection, study_id).items() if worker_id != except_for}
    reaped = []
    for worker_id, beat in watch.observe(others).items():
        with store.write() as connection:
            reaped += reap(store, connection, study_id, worker_id, beat)
    return reaped
