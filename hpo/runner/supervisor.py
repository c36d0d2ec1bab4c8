"""The supervisor: has workers of a study started, replaces those that die, and stops them."""

import contextlib
import signal
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from hpo.errors import StoreError
from hpo.runner.launchers.contract import ASKED, Ended, Launcher, Order, Worker
from hpo.runner.launchers.local import LocalLauncher
from hpo.runner.store_outage import StoreOutage
from hpo.store.database import schema
from hpo.store.database.connect import Store
from hpo.store.database.outages import reason
from hpo.store.database.url import complete
from hpo.store.leases import claims, stopping
from hpo.store.studies import StudyRecord
from hpo.training.engine import DeviceUnusable

SAME_DEATHS = 5
"""The run ends after so many workers died of the same cause with no trial finished in between."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before a dead worker is replaced: doubled with each death, back to the first once a trial finishes."""
REAP_SECONDS = 1.0
IDLE_SECONDS = 60.0
"""After so long without a trial to claim, a worker whose resources others may want ends."""
CLAIMABLE_LOOKS = 3
"""A worker is asked for again when so many looks, a second apart, have seen trials that nobody has claimed."""
WAITED_SECONDS = 10.0
"""After so long a run says how many of its workers wait for resources."""


@dataclass
class _Slot:
    """A place for one worker."""

    order: Order
    worker: Worker | None = None
    start_at: float = 0.0
    """When the next worker may be started, by the monotonic clock; 0 for never."""
    asked_at: float = 0.0
    """When its worker was asked for, by the monotonic clock."""
    by_torch_alone: bool = False
    """Whether its workers train by torch's kernels alone: a failed graph has left the device of a worker unusable."""


class Supervisor:
    """Keeps workers of a study at work, one for each device given, in the places that a launcher has for them."""

    def __init__(
        self,
        store: Store,
        study: StudyRecord,
        devices: Sequence[str],
        logs: Path,
        *,
        engine: str | None = None,
        launcher: Launcher | None = None,
    ) -> None:
        """Without a launcher the workers are processes of this machine; without an engine it is the recipe's."""
        self.store, self.study = store, study
        self.name = uuid.uuid4().hex
        self.launcher = launcher or LocalLauncher()
        environment = {"HPO_STORAGE": complete(store.url), "HPO_SUPERVISOR": self.name, ASKED: str(len(devices))}
        idle = IDLE_SECONDS if self.launcher.waits else None
        self.slots = [
            _Slot(
                Order(
                    study=study.name,
                    device=device,
                    engine=engine,
                    idle=idle,
                    log=logs / f"worker-{i}.log",
                    environment=environment,
                )
            )
            for i, device in enumerate(devices)
        ]
        self.failure = ""
        """Why the supervisor has stopped all workers; empty while it has not."""
        self.warnings: list[str] = []
        self._stopping = False
        self._deaths: list[str] = []
        self._losses = 0
        self._finished = -1
        self._watch = claims.Watch()
        self._last_reap = 0.0
        self._waiting_said = 0
        self._claimable_looks = 0
        self._outage = StoreOutage(store, study)

    def start(self) -> None:
        """Ask for all workers. Raises: OSError if one cannot be asked for, such as when its log cannot be written."""
        for slot in self.slots:
            self._start(slot)

    def _start(self, slot: _Slot) -> None:
        slot.worker = self.launcher.start(slot.order)
        slot.asked_at = time.monotonic()

    @property
    def running(self) -> bool:
        """Whether any worker runs, waits for its place, or is about to be replaced."""
        return any(slot.worker is not None for slot in self.slots) or (
            not self._stopping and any(slot.start_at > 0 for slot in self.slots)
        )

    def poll(self) -> None:
        """Replace dead workers and take over their trials."""
        for slot in self.slots:
            if slot.worker is not None and (ended := slot.worker.poll()) is not None:
                slot.worker = None
                self._ended(slot, ended)
            elif slot.worker is None and 0 < slot.start_at <= time.monotonic() and not self._stopping:
                self._replace(slot)
        if time.monotonic() - self._last_reap >= REAP_SECONDS:
            self._reap()
            self._say_who_waits()

    def _replace(self, slot: _Slot) -> None:
        slot.start_at = 0.0
        try:
            self._start(slot)
        except OSError as error:  # its log cannot be written, or there is no memory for a process
            slot.start_at = time.monotonic() + LONGEST_PAUSE
            self.warnings.append(f"no worker can be started ({error}); tried again in {LONGEST_PAUSE:.0f} s")

    def _say_who_waits(self) -> None:
        now = time.monotonic()
        waiting = [s for s in self.slots if s.worker is not None and not s.worker.place]
        count = len(waiting) if any(now - slot.asked_at > WAITED_SECONDS for slot in waiting) else 0
        if count and count != self._waiting_said:
            self.warnings.append(f"{count} of {len(self.slots)} workers wait for resources")
        self._waiting_said = count

    def _reap(self) -> None:
        self._last_reap = time.monotonic()
        try:
            claims.reap_dead(self.store, self.study.study_id, self._watch)
            self._outage.probe()
            message = self._outage.note("")
            self._refill()
        except (SQLAlchemyError, OSError) as error:
            self._watch.reset()
            message = self._outage.note(reason(error))
        except StoreError as error:
            self._stop_with(str(error))
            return
        if message:
            self.warnings.append(message)

    def _refill(self) -> None:
        """Ask again for workers that ended for want of trials, where trials can be claimed now that nobody has."""
        empty = [slot for slot in self.slots if slot.worker is None and slot.start_at == 0.0]
        if not empty or self._stopping or not self.launcher.waits:
            return
        with self.store.read() as connection:
            claimable = claims.claimable(
                connection, self.study.study_id, draws=self.study.recipe.sampler.name != "grid"
            )
        self._claimable_looks = self._claimable_looks + 1 if claimable else 0
        if self._claimable_looks >= CLAIMABLE_LOOKS:
            self._claimable_looks = 0
            for slot in empty[:claimable]:
                slot.start_at = time.monotonic()

    def _ended(self, slot: _Slot, ended: Ended) -> None:
        if ended.code == 0 or self._stopping:
            return
        finished = self._count_finished()
        if finished != self._finished:
            self._deaths.clear()
            self._losses = 0
        self._finished = finished
        if ended.code is None:
            self._losses += 1
            self._replace_later(slot, f"a worker was lost ({ended.cause})", self._losses)
            return
        cause = ended.cause or _last_line(slot.order.log)
        if ended.code in (1, 2):  # the worker reported an error, which another worker would meet too
            self._stop_with(cause.removeprefix("hpo: "))
            return
        if ended.code == DeviceUnusable.exit_code and not slot.by_torch_alone:
            slot.by_torch_alone, slot.start_at = True, time.monotonic()
            plain = {"HPO_CUDA_GRAPHS": "0", "HPO_TRITON": "0"}
            slot.order = replace(slot.order, environment={**slot.order.environment, **plain})
            what = f"{slot.order.device} is trained on without CUDA graphs and Triton from now on"
            self.warnings.append(f"{what}: {cause}")
            self._reap()
            return
        death = _signal(ended.code) or f"exit code {ended.code}: {cause}"
        if self._deaths and self._deaths[-1] != death:
            self._deaths.clear()
        self._deaths.append(death)
        if len(self._deaths) >= SAME_DEATHS:
            cause = f"{SAME_DEATHS} workers died of the same cause ({death})"
            self._stop_with(f"{cause}. Their last output is in {slot.order.log}")
            return
        self._replace_later(slot, f"a worker died ({death})", len(self._deaths))

    def _replace_later(self, slot: _Slot, what: str, times: int) -> None:
        pause = min(FIRST_PAUSE * 2 ** (times - 1), LONGEST_PAUSE)
        slot.start_at = time.monotonic() + pause
        self.warnings.append(f"{what}; another takes its place in {pause:.0f} s")
        self._reap()

    def _count_finished(self) -> int:
        try:
            with self.store.read() as connection:
                return stopping.count_finished(connection, self.study.study_id)
        except (SQLAlchemyError, StoreError):
            return self._finished

    def _stop_with(self, reason: str) -> None:
        self.failure = self.failure or reason
        self.stop()

    def stop(self) -> None:
        """Have all workers release their trials after the current epoch, and end."""
        self._stopping = True
        for slot in self.slots:
            slot.start_at = 0.0
            if slot.worker is not None:
                slot.worker.stop()

    def kill(self) -> None:
        """Kill all workers and release their trials."""
        self._stopping = True
        for slot in self.slots:
            slot.start_at = 0.0
            if slot.worker is not None:
                slot.worker.kill()
                slot.worker = None
        workers = schema.hpo_workers.c
        supervised = sa.select(workers.worker_id).where(
            workers.study_id == self.study.study_id, workers.state_json.like(f'%"{self.name}"%')
        )
        # Where the store cannot be written, the trials are taken over once their workers' beats stand still.
        with contextlib.suppress(SQLAlchemyError, StoreError), self.store.write() as connection:
            for worker_id in list(connection.execute(supervised).scalars()):
                claims.release(self.store, connection, self.study.study_id, worker_id)


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


def _signal(code: int) -> str:
    """Return which signal an exit code stands for; empty for none. A worker that ends in order on one adds 128."""
    number = -code if code < 0 else code - 128
    return f"signal {number}" if code < 0 or number in (signal.SIGINT, signal.SIGTERM) else ""
