"""A worker: one process at work on a study, until the study is over or it is told to stop."""

import contextlib
import logging
import os
import platform
import signal
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from hpo import data
from hpo.artifacts import dashboard_folder, study_files
from hpo.config import Split
from hpo.optuna_compat import silence
from hpo.recipe import EngineName
from hpo.runner.checkpoint_retention import CheckpointRetention, policy_of
from hpo.runner.loop import Loop
from hpo.runner.session import Session
from hpo.runner.trial_plots import TrialPlotter, Validation, can_draw
from hpo.store import queries
from hpo.store.database.connect import Store
from hpo.store.leases.outbox import WorkerLost
from hpo.store.leases.stopping import StopReason
from hpo.store.studies import StudyRecord, check_data
from hpo.training.engine import Engine

_log = logging.getLogger(__name__)


def work(
    store: Store,
    study: StudyRecord,
    engine: Engine,
    keeper: CheckpointRetention,
    description: dict[str, Any],
    *,
    stopping: threading.Event | None = None,
    plotter: TrialPlotter | None = None,
    idle: float | None = None,
) -> StopReason | None:
    """Work on a study; return why it is over, or None if told to stop, or if idle for so long. Raises: StoreError.

    A worker that others have declared dead - it was suspended, or cut off from the store for too long - drops its
    trials, which others have taken over, and starts again.
    """
    stop = stopping or threading.Event()
    while True:
        session = Session(store, study, description)
        session.link.stopped = stop
        loop = None
        try:
            with session:
                loop = Loop(session, engine, keeper, stop.is_set, plotter, idle=idle)
                return loop.run()
        except WorkerLost:
            _log.warning("this worker was declared dead and its trials were taken over; it starts again")
            for key in loop.live if loop is not None else ():
                engine.evict(key)


HELD_PART = 8
"""A worker runs at most this fraction (1/8) of a study's trials at once: a draw learns nothing from running trials."""


def make_engine(name: EngineName, device: str, most: int | None = None) -> Engine:
    """Return the engine of this name on a device; it holds at most so many trials.

    Raises: UsageError for an unknown device.
    """
    from hpo.training.devices import choose_device, use_one_thread
    from hpo.training.packed.scheduling.autotune import Chooser
    from hpo.training.packed.scheduling.engine import PackedEngine, default_slots
    from hpo.training.solo import SoloEngine

    use_one_thread()
    chosen = choose_device(device)
    # Lanes have not been tried on MPS.
    if name == "solo" or (name == "auto" and chosen.type == "mps"):
        return SoloEngine(chosen)
    slots = min(default_slots(chosen), most or default_slots(chosen))
    return PackedEngine(chosen, Chooser(chosen, slots) if name == "auto" else None, slots)


def most_held(store: Store, study: StudyRecord) -> int | None:
    """Return how many trials a worker may run at once without harm to the search; None if nothing is drawn."""
    with store.read() as connection:
        budget = queries.study(connection, study.study_id).budget
    return None if budget is None or budget.only_waiting else max(1, budget.trials // HELD_PART)


def train_study(
    store: Store,
    study: StudyRecord,
    device: str,
    stop: threading.Event,
    *,
    about: Mapping[str, Any] | None = None,
    idle: float | None = None,
    engine_name: EngineName | None = None,
    plots: bool = True,
) -> StopReason | None:
    """Check that the data is the study's, then work on it; with the recipe's engine if none is named.

    Returns why the study is over, or None if told to stop or if there was nothing to claim for `idle` seconds.

    `about` adds to what others can read about this worker. `plots` has a process of the lowest priority draw pictures
    of the trials. Raises: HpoError.
    """
    silence()
    info = data.info(study.space.data)
    data.fetch(info)
    check_data(study, data.fingerprint(info, study.space.split))
    engine = make_engine(engine_name or study.recipe.engine, device, most_held(store, study))
    description = {"host": platform.node(), "process": os.getpid(), "device": device, **(about or {})}
    keeper = CheckpointRetention(study_files(store.url, study.uid), policy_of(store, study))
    with contextlib.ExitStack() as stack:
        plotter = None
        if plots and can_draw():  # training goes on where only its own needs are installed
            folder = dashboard_folder(store.url)
            plotter = stack.enter_context(TrialPlotter(folder, study.uid, partial(_validation, study)))
        over = work(store, study, engine, keeper, description, stopping=stop, plotter=plotter, idle=idle)
    _log.info("done: %s", over.reason if over else "told to stop, or idle")
    return over


def _validation(study: StudyRecord, split: Split) -> Validation:
    info = data.info(study.space.data)
    rows = data.load_parts(info, split).validation
    return Validation(rows.x, rows.y, info.classes)


class StopEvent(threading.Event):
    """Tells a worker to stop."""

    signal = 0
    """The signal that set it; 0 if none did."""


def stop_on_signals(second: Callable[[], None]) -> StopEvent:
    """Return an event that the first Ctrl-C or SIGTERM sets; the next one calls `second`."""
    stop = StopEvent()

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            second()
        stop.signal = number
        stop.set()

    def leave(number: int, frame: object) -> None:
        stop.set()

    signal.signal(signal.SIGUSR2, leave)  # Slurm announces the end of a job by it, SIGTERM following or not
    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return stop


def stop_with_parent(stop: threading.Event) -> None:
    """Set an event when the other end of standard input closes: the parent says stop, or is dead."""

    def wait() -> None:
        while os.read(0, 1):  # not through sys.stdin: its lock would outlive this thread
            pass
        stop.set()

    threading.Thread(target=wait, name="parent", daemon=True).start()
