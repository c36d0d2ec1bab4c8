"""The supervisor: runs worker processes for a study, replaces those that die, and stops them."""

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from hpo import files
from hpo.errors import StoreError
from hpo.interpreter import python
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


@dataclass
class _Slot:
    """A place for one worker."""

    device: str
    log: Path
    process: subprocess.Popen[bytes] | None = None
    output: IO[bytes] | None = None
    start_at: float = 0.0
    """When the next worker may be started, by the monotonic clock."""
    without_graphs: bool = False
    """Whether its workers train without CUDA graphs: a failed one has left the device of a worker unusable."""


class Supervisor:
    """Runs workers of a study on this machine, one for each device given."""

    def __init__(
        self,
        store: Store,
        study: StudyRecord,
        devices: Sequence[str],
        logs: Path,
        *,
        command: Sequence[str] = (),
        engine: str | None = None,
    ) -> None:
        """`command` starts a worker, to which study, device and, if it is not the recipe's, engine are added."""
        self.store, self.study = store, study
        self.name = uuid.uuid4().hex
        self.command = list(command) or python("-X", "faulthandler", "-m", "hpo", "worker", "--supervised")
        self._added = ["--engine", engine] if engine else []
        self.slots = [_Slot(d, logs / f"worker-{i}.log") for i, d in enumerate(devices)]
        self.failure = ""
        """Why the supervisor has stopped all workers; empty while it has not."""
        self.warnings: list[str] = []
        self._stopping = False
        self._deaths: list[str] = []
        self._finished = -1
        self._watch = claims.Watch()
        self._last_reap = 0.0
        self._outage = StoreOutage(store, study)

    def start(self) -> None:
        """Start all workers. Raises: OSError if the logs cannot be written."""
        for slot in self.slots:
            slot.log.parent.mkdir(parents=True, exist_ok=True)
            self._start(slot)

    def _start(self, slot: _Slot) -> None:
        environment = {
            **os.environ,
            "HPO_STORAGE": complete(self.store.url),
            "HPO_SUPERVISOR": self.name,
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            **({"HPO_CUDA_GRAPHS": "0"} if slot.without_graphs else {}),
        }
        slot.output = files.under(slot.log.parent, slot.log.name).open("ab")
        slot.process = subprocess.Popen(
            [*self.command, "--study", self.study.name, "--device", slot.device, *self._added],
            stdin=subprocess.PIPE,
            stdout=slot.output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches only the supervisor
        )

    @property
    def running(self) -> bool:
        """Whether any worker runs or is about to be replaced."""
        return any(slot.process is not None for slot in self.slots) or (
            not self._stopping and any(slot.start_at > 0 for slot in self.slots)
        )

    def poll(self) -> None:
        """Replace dead workers and take over their trials."""
        for slot in self.slots:
            if slot.process is not None and slot.process.poll() is not None:
                self._ended(slot, slot.process.returncode)
            elif slot.process is None and 0 < slot.start_at <= time.monotonic() and not self._stopping:
                self._replace(slot)
        if time.monotonic() - self._last_reap >= REAP_SECONDS:
            self._reap()

    def _replace(self, slot: _Slot) -> None:
        slot.start_at = 0.0
        try:
            self._start(slot)
        except OSError as error:  # its log cannot be written, or there is no memory for a process
            slot.start_at = time.monotonic() + LONGEST_PAUSE
            self.warnings.append(f"no worker can be started ({error}); tried again in {LONGEST_PAUSE:.0f} s")

    def _reap(self) -> None:
        self._last_reap = time.monotonic()
        try:
            claims.reap_dead(self.store, self.study.study_id, self._watch)
            self._outage.probe()
            message = self._outage.note("")
        except (SQLAlchemyError, OSError) as error:
            self._watch.reset()
            message = self._outage.note(reason(error))
        except StoreError as error:
            self._stop_with(str(error))
            return
        if message:
            self.warnings.append(message)

    def _ended(self, slot: _Slot, code: int) -> None:
        last_line = self._close(slot)
        if code == 0 or self._stopping:
            return
        if code in (1, 2):  # the worker reported an error, which another worker would meet too
            self._stop_with(last_line.removeprefix("hpo: "))
            return
        if code == DeviceUnusable.exit_code and not slot.without_graphs:
            slot.without_graphs, slot.start_at = True, time.monotonic()
            self.warnings.append(f"{slot.device} is trained on without CUDA graphs from now on: {last_line}")
            self._reap()
            return
        death = _signal(code) or f"exit code {code}: {last_line}"
        finished = self._count_finished()
        if finished != self._finished or (self._deaths and self._deaths[-1] != death):
            self._deaths.clear()
        self._finished = finished
        self._deaths.append(death)
        if len(self._deaths) >= SAME_DEATHS:
            cause = f"{SAME_DEATHS} workers died of the same cause ({death})"
            self._stop_with(f"{cause}. Their last output is in {slot.log}")
            return
        pause = min(FIRST_PAUSE * 2 ** (len(self._deaths) - 1), LONGEST_PAUSE)
        slot.start_at = time.monotonic() + pause
        self.warnings.append(f"a worker died ({death}); another takes its place in {pause:.0f} s")
        self._reap()

    def _close(self, slot: _Slot) -> str:
        """Forget a slot's ended process; return the last line that it wrote."""
        assert slot.process is not None and slot.output is not None
        if slot.process.stdin is not None:
            slot.process.stdin.close()
        slot.output.close()
        slot.process = None
        lines = slot.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

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
            if slot.process is not None and slot.process.stdin is not None and not slot.process.stdin.closed:
                slot.process.stdin.close()

    def kill(self) -> None:
        """Kill all workers and release their trials."""
        self._stopping = True
        for slot in self.slots:
            slot.start_at = 0.0
            if slot.process is not None:
                slot.process.kill()
                slot.process.wait()
                self._close(slot)
        workers = schema.hpo_workers.c
        supervised = sa.select(workers.worker_id).where(
            workers.study_id == self.study.study_id, workers.state_json.like(f'%"{self.name}"%')
        )
        # Where the store cannot be written, the trials are taken over once their workers' beats stand still.
        with contextlib.suppress(SQLAlchemyError, StoreError), self.store.write() as connection:
            for worker_id in list(connection.execute(supervised).scalars()):
                claims.release(self.store, connection, self.study.study_id, worker_id)


def _signal(code: int) -> str:
    """Return which signal an exit code stands for; empty for none. A worker that ends in order on one adds 128."""
    number = -code if code < 0 else code - 128
    return f"signal {number}" if code < 0 or number in (signal.SIGINT, signal.SIGTERM) else ""
