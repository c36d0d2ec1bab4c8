"""A worker process with the fake engine: `python -m tests.stress.worker --study NAME ...`, store in HPO_STORAGE."""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

from hpo.artifacts import study_files
from hpo.config import TrialConfig
from hpo.errors import HpoError
from hpo.runner.checkpoint_retention import CheckpointRetention, policy_of
from hpo.runner.worker import work
from hpo.store import studies
from hpo.store.database import trial_rows
from hpo.store.database.connect import open_store
from hpo.store.database.url import parse
from hpo.training.engine import Fault
from hpo.training.simulated import SimulatedEngine

FAULTS = {0: "diverged", 1: "oom", 2: "error"}


def fault_of(config: TrialConfig, epoch: int) -> Fault | None:
    """A fifth of all trials meets a fault in its second epoch; of the OOMs, those with even seeds fit in parts."""
    kind = FAULTS.get(config.seed % 15)
    if kind is None or epoch != 2 or (kind == "oom" and config.accumulation > 1 and config.seed % 2 == 0):
        return None
    return Fault(kind, "as planned")  # type: ignore[arg-type]


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--study", required=True)
    arguments.add_argument("--device", default="fake")
    arguments.add_argument("--epoch-seconds", type=float, default=0.01)
    arguments.add_argument("--capacity", type=int, default=1)
    arguments.add_argument("--faults", action="store_true")
    arguments.add_argument("--clock-ahead", type=float, default=0.0)
    options = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    if options.clock_ahead:
        honest = trial_rows.now
        trial_rows.now = lambda: honest() + timedelta(seconds=options.clock_ahead)
    if "FAKETIME_TIMESTAMP_FILE" in os.environ:  # libfaketime 0.9.10 breaks Python's time.sleep
        time.sleep = lambda seconds: (threading.Event().wait(float(seconds)), None)[1]
    store = open_store(parse(os.environ["HPO_STORAGE"]))
    study = studies.load_study(store, options.study)

    def admitted(key: int, epochs: int) -> None:
        with Path(os.environ["STRESS_LOG"]).open("a") as log:
            log.write(f"{key} {epochs} {os.getpid()}\n")

    engine = SimulatedEngine(
        options.capacity, options.epoch_seconds, fault_of if options.faults else lambda c, e: None, admitted
    )
    keeper = CheckpointRetention(study_files(store.url, study.uid), policy_of(store, study))
    about = {"host": "here", "process": os.getpid(), "supervisor": os.environ.get("HPO_SUPERVISOR", "")}
    try:
        over = work(store, study, engine, keeper, about, stopping=stop)
    except HpoError as error:
        sys.exit(f"hpo: {error}")
    logging.info("done: %s", over.reason if over else "told to stop")


if __name__ == "__main__":
    main()
