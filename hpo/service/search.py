"""Workers kept at a study until it is over, with an observer of their progress."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, get_args

from hpo.artifacts import log_folder
from hpo.errors import StudyError, UsageError
from hpo.interpreter import python
from hpo.recipe import EngineName
from hpo.runner.devices import devices_for
from hpo.runner.launchers.contract import Launcher
from hpo.runner.supervisor import Supervisor
from hpo.store import queries
from hpo.store.database.connect import Store
from hpo.store.database.url import complete
from hpo.store.studies import StudyRecord

__all__ = [
    "EngineName",
    "Observer",
    "RunOutcome",
    "SilentObserver",
    "StopRequest",
    "Store",
    "StudyRecord",
    "check_engine",
    "dashboard_beside",
    "devices_for",
    "run_in_process",
    "run_workers",
    "stop_on_signals",
]

TICK_SECONDS = 0.2
STOPPING = "stopping after the current epoch; Ctrl-C again to stop at once"


class Observer(Protocol):
    """Shows the progress of a search; a context that is entered when the workers start and left when they have ended.

    It reads what it shows from the store (`read_progress`), so that it shows all workers, wherever they run.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self) -> None:
        """Draw what has changed; called about five times a second, from the thread that called `run_workers`."""

    def say(self, text: str) -> None:
        """Show a line that stays."""

    def warn(self, text: str) -> None:
        """Show a warning that stays."""


class SilentObserver:
    """An observer that shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def update(self) -> None:
        """Draw nothing."""

    def say(self, text: str) -> None:
        """Ignore a line."""

    def warn(self, text: str) -> None:
        """Ignore a warning."""


class StopRequest:
    """A wish that a run stops: the first request is gentle, the second stops the workers at once."""

    def __init__(self) -> None:
        self.count = 0
        """Requests so far."""
        self.signal: int = signal.SIGINT
        """The signal that the last request came by."""

    def request(self, number: int = signal.SIGINT) -> None:
        """Have the run stop after the current epoch; at once if this was asked before."""
        self.count += 1
        self.signal = number


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn Ctrl-C and SIGTERM into requests to stop, as long as the context lasts. For the main thread only."""
    stop = StopRequest()
    before = {n: signal.signal(n, lambda number, _: stop.request(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class RunOutcome:
    """How a run of workers ended."""

    study: str
    """The study's name."""
    failure: str = ""
    """Why no worker can work on the study; empty if all went well."""
    stopped: bool = False
    """Whether the run was asked to stop."""

    def raise_for_failure(self) -> None:
        """Raise: StudyError if the run failed."""
        if self.failure:
            raise StudyError(f'Study "{self.study}" stopped: {self.failure}')


def check_engine(name: str | None) -> EngineName | None:
    """Return the name of an engine if it is one. Raises: UsageError."""
    match name:
        case None | "auto" | "packed" | "solo":
            return name
    *others, last = sorted(get_args(EngineName))
    raise UsageError(f'engine: must be {", ".join(others)} or {last}, got "{name}".')


def run_workers(
    store: Store,
    study: StudyRecord,
    *,
    devices: Sequence[str],
    engine: str | None = None,
    observer: Observer | None = None,
    stop: StopRequest | None = None,
    launcher: Launcher | None = None,
) -> RunOutcome:
    """Keep one worker per device at a study until it is over; return at once if it is over already.

    The workers are processes of this machine, or run where `launcher` starts them; closing it is the caller's affair.

    A `KeyboardInterrupt` in the calling thread is a request to stop, as one by `stop`: workers end after their epoch
    and hand back their trials, which the next run resumes; a second request ends them at once. Signal handlers are the
    caller's affair (`stop_on_signals`). Raises: UsageError for an unknown engine, or for code that may not run.
    """
    check_engine(engine)
    study.space.check_code()
    observer, stop = observer or SilentObserver(), stop or StopRequest()
    with store.read() as connection:
        state = queries.study(connection, study.study_id)
    if state.over is not None:
        return RunOutcome(study.name)
    total = state.budget.trials if state.budget is not None else 0
    observer.say(f'study "{study.name}": {state.finished} of {total} trials done')
    supervisor = Supervisor(store, study, devices, log_folder(store.url, study.uid), engine=engine, launcher=launcher)
    try:
        supervisor.start()
        with observer:
            _supervise(supervisor, observer, stop)
    except BaseException:  # not one of a worker, but of this process: its workers must not outlive it
        supervisor.kill()
        raise
    return RunOutcome(study.name, supervisor.failure, stop.count > 0)


def _supervise(supervisor: Supervisor, observer: Observer, stop: StopRequest) -> None:
    """Replace workers that die and pass on requests to stop, until no worker is left."""
    noticed = 0
    while supervisor.running:
        try:
            supervisor.poll()
            if stop.count > noticed == 0:
                observer.say(STOPPING)
                supervisor.stop()
            if stop.count > 1:
                supervisor.kill()
            noticed = stop.count
            for warning in supervisor.warnings:
                observer.warn(warning)
            supervisor.warnings.clear()
            observer.update()
            time.sleep(TICK_SECONDS)
        except KeyboardInterrupt:
            stop.request()


def run_in_process(
    store: Store,
    study: StudyRecord,
    *,
    device: str = "auto",
    engine: EngineName | None = None,
    observer: Observer | None = None,
) -> RunOutcome:
    """Train a study's trials in a thread of this process until it is over: saves the start of worker processes.

    One CPU thread trains, as in a worker process; no pictures of trials are drawn. A `KeyboardInterrupt` in the
    calling thread has the training stop after its epoch and release its trials. Raises: HpoError for whatever a
    worker cannot do.
    """
    from hpo.runner.worker import train_study  # it needs Optuna, which takes a second to import

    check_engine(engine)
    study.space.check_code()
    observer, stop, errors = observer or SilentObserver(), threading.Event(), list[BaseException]()

    def train() -> None:
        try:
            train_study(store, study, device, stop, engine_name=engine, plots=False)
        except BaseException as error:  # raised again in the calling thread
            errors.append(error)

    thread = threading.Thread(target=train, name="hpo-worker", daemon=True)
    with observer:
        thread.start()
        while thread.is_alive():
            try:
                observer.update()
                thread.join(TICK_SECONDS)
            except KeyboardInterrupt:
                stop.set()
    if errors:
        raise errors[0]
    return RunOutcome(study.name, stopped=stop.is_set())


@contextlib.contextmanager
def dashboard_beside(store: Store) -> Iterator[None]:
    """Keep a dashboard of a store running at localhost:8080, in a process of its own, as long as the context lasts."""
    command = python("-m", "hpo", "dashboard")
    # Its own process group: Ctrl-C is for the search, which ends the dashboard afterwards.
    process = subprocess.Popen(command, env=os.environ | {"HPO_STORAGE": complete(store.url)}, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)
