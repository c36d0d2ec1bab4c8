"""What runs in a Slurm job: it keeps a worker process and tells the run about it by files in a folder that both see."""

import json
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpo import files
from hpo.runner.launchers.contract import PLACE
from hpo.runner.launchers.machines import Marker, problem_here
from hpo.runner.launchers.process import WorkerProcess

STARTED, ENDED, STOP, KILL = "started", "ended", "stop", "kill"
"""Endings of a worker's files in the run's folder. The job writes the first two, the run the others."""
POLL_SECONDS = 0.5


def run_worker(
    name: str, arguments: Sequence[str], log: str, *, folder: str, version: str, marker: tuple[str, str]
) -> int:
    """Keep a worker in this job until it ends; return its exit code. For the main thread of the job's process.

    SIGTERM and SIGUSR2, by which Slurm announces that a job is preempted or at its time limit, have the worker release
    its trials after the epoch.
    """
    place = f"{socket.gethostname()}/{os.environ.get('SLURM_JOB_ID') or os.environ.get('SUBMITIT_LOCAL_JOB_ID', '')}"
    started, ended, stop, kill = (Path(folder) / f"{name}.{ending}" for ending in (STARTED, ENDED, STOP, KILL))
    _tell(started, {"place": place})
    problem = problem_here(version, Marker(*marker))
    if problem:
        _tell(ended, {"code": 1, "cause": f"on: {problem}", "leaving": False})
        return 1
    process = WorkerProcess(arguments, {PLACE: place}, Path(log))
    leaving = False

    def leave(number: int, frame: object) -> None:
        nonlocal leaving
        leaving = True
        process.stop()

    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, leave)
    while (code := process.poll()) is None:
        if kill.exists():
            process.kill()
        elif stop.exists():
            process.stop()
        time.sleep(POLL_SECONDS)
    _tell(ended, {"code": code, "cause": "", "leaving": leaving})
    return code


def _tell(path: Path, content: Mapping[str, object]) -> None:
    files.write(path, json.dumps(content))
