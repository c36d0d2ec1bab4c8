"""What a launcher promises: workers asked for, watched and stopped, and what they wrote brought here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

PLACE, ASKED = "HPO_PLACE", "HPO_ASKED"
"""Environment variables of a worker: where it runs, and how many workers its run has asked for."""


@dataclass(frozen=True)
class Resources:
    """What each worker needs."""

    cpus: float = 1.0
    """CPU cores, > 0."""
    gpus: float = 0.0
    """GPUs, >= 0; a part such as 0.25 shares one among workers."""

    def __str__(self) -> str:
        """Return it in words: "1 CPU and 0.25 GPU"."""
        cpus = f"{self.cpus:g} CPU{'' if self.cpus <= 1 else 's'}"
        return cpus + (f" and {self.gpus:g} GPU{'' if self.gpus <= 1 else 's'}" if self.gpus else "")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a worker is to do, the same wherever it runs."""

    study: str
    device: str
    log: Path
    """Where this machine keeps what the worker writes."""
    engine: str | None = None
    """None for the recipe's."""
    idle: float | None = None
    """Seconds after which it ends if there was nothing to claim; None for never."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that the worker gets besides those of its machine. May hold a password: never shown."""

    @property
    def arguments(self) -> list[str]:
        """The options of `hpo worker`."""
        engine = [] if self.engine is None else ["--engine", self.engine]
        idle = [] if self.idle is None else ["--idle", f"{self.idle:g}"]
        return ["--study", self.study, "--device", self.device, *engine, *idle]


@dataclass(frozen=True)
class Ended:
    """How a worker ended."""

    code: int | None
    """Its exit code, negative for a signal; None where it was lost with its place, or had to leave it."""
    cause: str = ""
    """Why, where the worker itself could not say so in its log."""


class Worker(Protocol):
    """A worker that was asked for. It waits for its place, runs, and ends."""

    @property
    def place(self) -> str:
        """Where it runs; empty while it waits for resources."""
        ...

    def poll(self) -> Ended | None:
        """Bring what it has written to its order's log; return how it ended, None if it has not. Never waits."""
        ...

    def stop(self) -> None:
        """Have it release its trials after the current epoch, and end."""
        ...

    def kill(self) -> None:
        """End it at once, and bring what it has written."""
        ...


class Launcher(Protocol):
    """Starts workers in one kind of place."""

    @property
    def waits(self) -> bool:
        """Whether workers wait for resources, and should give them back when there is nothing to do."""
        ...

    def start(self, order: Order) -> Worker:
        """Ask for a worker; return at once. Raises: OSError if it cannot be asked for now."""
        ...

    def close(self) -> None:
        """Release what the launcher holds; called when all its workers have ended."""
        ...
