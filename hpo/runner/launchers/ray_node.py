"""What runs on the nodes of a Ray cluster: the actor that keeps a worker process, and the check of a node.

Ray is imported here, so this module is imported on nodes and by `hpo.runner.launchers.ray_cluster` alone.
"""

import os
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import ray

from hpo.runner.launchers.contract import PLACE
from hpo.runner.launchers.machines import Marker, problem_here
from hpo.runner.launchers.process import WorkerProcess
from hpo.runner.launchers.ray_compat import draining_nodes

DRAIN_SECONDS = 5.0
"""How often an actor asks whether its node is being taken away."""
LOOK_BYTES = 1_000_000
"""Most that one look brings of what a worker has written."""

Look = tuple[int | None, bytes, str, bool]
"""The worker's exit code, what it has written, where it runs, and whether its node is being taken away."""


class NodeWorker:
    """Keeps a worker process on a node; the process stops when this actor is gone."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the worker. Raises: OSError."""
        self._node = ray.get_runtime_context().get_node_id()
        self.place = f"{socket.gethostname()}/{self._node[:8]}"
        self._folder = tempfile.TemporaryDirectory(prefix="hpo-ray-")
        self._log = Path(self._folder.name) / "worker.log"
        self._process = WorkerProcess(arguments, {**environment, PLACE: self.place}, self._log)
        self._leaving = False
        self._asked_at = 0.0

    def look(self, offset: int) -> Look:
        """Return how the worker is, and what it has written from a byte on."""
        code = self._process.poll()
        with self._log.open("rb") as log:
            log.seek(offset)
            written = log.read(LOOK_BYTES)
        if not self._leaving and time.monotonic() - self._asked_at > DRAIN_SECONDS:
            self._asked_at = time.monotonic()
            self._leaving = self._node in draining_nodes()
            if self._leaving:
                self.stop()
        return code, written, self.place, self._leaving

    def stop(self) -> None:
        """Have the worker release its trials after the current epoch, and end."""
        self._process.stop()

    def kill(self) -> None:
        """Kill the worker."""
        self._process.kill()


def check_node(version: str, marker: tuple[str, str], environment: Mapping[str, str]) -> str:
    """Return why no worker could work on this node, as one line; empty if one could."""
    os.environ.update(environment)  # of a process that Ray keeps for tasks with this function's environment
    return problem_here(version, Marker(*marker))
