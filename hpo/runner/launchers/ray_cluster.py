"""Workers as actors of a Ray cluster."""

import contextlib
import math
import time
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import hpo
from hpo import files
from hpo.errors import UsageError
from hpo.runner.launchers.contract import Ended, Order, Resources
from hpo.runner.launchers.machines import Marker
from hpo.runner.launchers.ray_node import NodeWorker, check_node

LOOK_SECONDS = 1.0
"""How often a worker is looked at."""
KILL_SECONDS = 5.0
"""How long a kill waits for the actor's answer."""
CHECK_SECONDS = 300.0
"""How long the check of the nodes may take; a node's first import of hpo takes seconds."""


class RayWorker:
    """A worker in an actor."""

    def __init__(self, actor: Any, log: Path) -> None:
        """Start to look at an actor that was asked for."""
        self.place = ""
        self._actor, self._log = actor, log
        self._offset, self._looked_at = 0, 0.0
        self._look: Any = actor.look.remote(0)
        self._ended: Ended | None = None

    def poll(self) -> Ended | None:
        """Bring what it has written; return how it ended, None if it has not."""
        if self._ended is not None or time.monotonic() - self._looked_at < LOOK_SECONDS:
            return self._ended
        if ray.wait([self._look], timeout=0)[0]:
            self._looked_at = time.monotonic()
            self._ended = self._take()
        return self._ended

    def _take(self) -> Ended | None:
        """Take what a look has brought, and look again."""
        try:
            code, written, self.place, leaving = ray.get(self._look)
        except ActorUnavailableError:  # the network between here and the node; Ray tells if the actor is dead
            self._look = self._actor.look.remote(self._offset)
            return None
        except RayActorError as error:
            return _lost(error, started=bool(self.place))
        except RayError as error:
            return Ended(1, f"on: Ray could not run the worker: {_last_line(error)}")
        with files.under(self._log.parent, self._log.name).open("ab") as log:
            log.write(written)
        self._offset += len(written)
        if code is None or written:  # the rest of a dead worker's words is brought too
            self._look = self._actor.look.remote(self._offset)
            self._looked_at = 0.0 if code is not None else self._looked_at
            return None
        self._end_actor()
        return Ended(None, "its node is being taken away") if leaving and code == 0 else Ended(code)

    def stop(self) -> None:
        """Have it release its trials after the current epoch, and end."""
        if not self.place:  # it waits for resources, and has no trials
            self._end_actor()
            self._ended = Ended(0)
        elif self._ended is None:
            self._actor.stop.remote()

    def kill(self) -> None:
        """End it at once, and bring what it has written."""
        if self._ended is None and self.place:
            with contextlib.suppress(RayError):
                ray.get(self._actor.kill.remote(), timeout=KILL_SECONDS)
                while self._ended is None:  # the actor answers now; its worker is dead
                    self._ended = self._take()
        self._end_actor()
        self._ended = self._ended or Ended(-9)

    def _end_actor(self) -> None:
        with contextlib.suppress(RayError, ValueError):
            ray.kill(self._actor)


def _lost(error: Exception, *, started: bool) -> Ended:
    text = str(error)
    if not started and "creation task" in text:  # it would fail on the next node too
        return Ended(1, f"on: Ray could not start the worker: {_last_line(error)}")
    return Ended(None, "its node died" if "node" in text.lower() else "its actor died")


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class RayLauncher:
    """Starts workers on a Ray cluster that this process is connected to."""

    waits = True

    def __init__(self, resources: Resources, environment: dict[str, str], *, connected: bool) -> None:
        """`environment` is what workers get from this machine; `connected`: whether hpo made the connection."""
        self.resources, self._environment, self._connected = resources, environment, connected
        self._actors = ray.remote(NodeWorker)

    def start(self, order: Order) -> RayWorker:
        """Ask for a worker. Raises: OSError if its log cannot be written."""
        order.log.parent.mkdir(parents=True, exist_ok=True)
        files.under(order.log.parent, order.log.name).open("ab").close()
        actor = self._actors.options(
            num_cpus=self.resources.cpus,
            num_gpus=self.resources.gpus,
            max_restarts=0,  # the supervisor replaces it, once it has seen why it ended
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            name=None,
        ).remote(order.arguments, {**order.environment, **self._environment})
        return RayWorker(actor, order.log)

    def close(self) -> None:
        """End the connection if hpo made it."""
        if self._connected:
            ray.shutdown()


def nodes() -> list[dict[str, Any]]:
    """Return the living nodes."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def room(node: dict[str, Any], resources: Resources) -> int:
    """Return how many workers a whole node could take."""
    has: dict[str, float] = node["Resources"]
    counts = [has.get("CPU", 0.0) / resources.cpus]
    if resources.gpus > 0:
        counts.append(has.get("GPU", 0.0) / resources.gpus)
    return math.floor(min(counts) + 1e-9)


def check_resources(resources: Resources) -> int:
    """Return how many workers the cluster can run at once. Raises: UsageError if no node has the resources of one."""
    living = nodes()
    total = sum(room(node, resources) for node in living)
    if total == 0:
        has = [Resources(n["Resources"].get("CPU", 0.0), n["Resources"].get("GPU", 0.0)) for n in living]
        most = max(has, key=lambda each: (each.gpus, each.cpus))
        raise UsageError(
            f"on: a worker needs {resources}, and no node of the Ray cluster has them: the largest of "
            f"{len(living)} has {most}. Ask for less by --cpus and --gpus, or have nodes added that an autoscaler "
            "would add later: --on-option wait=yes"
        )
    return total


def check_nodes(marker: Marker, environment: dict[str, str]) -> None:
    """Check on every living node that a worker could work there. Raises: UsageError; ModuleNotFoundError."""
    check = ray.remote(check_node)
    asked = [
        check.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(hpo.__version__, (marker.path, marker.content), environment)
        for node in nodes()
    ]
    try:
        problems = ray.get(asked, timeout=CHECK_SECONDS)
    except GetTimeoutError as error:
        late = sum(not ray.wait([each], timeout=0)[0] for each in asked)
        raise UsageError(
            f"on: {late} of the {len(asked)} nodes of the Ray cluster did not answer within {CHECK_SECONDS:.0f} s. "
            "Try again, or have them removed."
        ) from error
    except RayError as error:
        if "ModuleNotFoundError" in str(error) or "No module named" in str(error):
            raise ModuleNotFoundError(_last_line(error)) from error
        raise UsageError(f"on: the nodes of the Ray cluster could not be checked: {_last_line(error)}") from error
    for problem in problems:
        if problem:
            raise UsageError(f"on: {problem}")
