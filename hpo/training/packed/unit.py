"""What takes a turn in the packed engine, and the simplest of it: a trial by itself, in its turn or on a stream."""

import contextlib
from typing import Protocol

import torch

from hpo.training.engine import Checkpoint, EpochResult, Fault
from hpo.training.run import Run


class Unit(Protocol):
    """What takes a turn in training: a lane, or a trial alone."""

    @property
    def shared(self) -> bool:
        """Whether several trials are trained for little more than the price of one."""
        ...

    def trials(self) -> list[int]:
        """Return the trials held."""
        ...

    def live(self) -> list[int]:
        """Return the trials that have epochs before them."""
        ...

    def launch(self) -> None:
        """Begin an epoch."""
        ...

    def collect(self) -> dict[int, EpochResult | Fault]:
        """Return what the epoch that was begun gave."""
        ...

    def end(self, key: int) -> None:
        """Have a trial take no further part."""
        ...

    def checkpoint(self, key: int) -> Checkpoint: ...

    def evict(self, key: int) -> None: ...


class SingleRun:
    """A trial that is trained by itself, as the solo engine would."""

    def __init__(self, key: int, run: Run, beside: bool = False) -> None:
        """`beside` has it share the device with others; without CUDA they take turns nevertheless."""
        self.shared = beside
        self._runs = {key: run}
        self._live = {key}
        self._stream: torch.cuda.Stream | None = None
        if beside and run.device.type == "cuda":
            self._stream = torch.cuda.Stream(run.device)  # type: ignore[no-untyped-call]

    def trials(self) -> list[int]:
        return list(self._runs)

    def live(self) -> list[int]:
        return list(self._live)

    def launch(self) -> None:
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with self._on_stream():
            for key in self._live:
                self._runs[key].launch()

    def collect(self) -> dict[int, EpochResult | Fault]:
        with self._on_stream():
            return {key: self._runs[key].collect() for key in self._live}

    def _on_stream(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def end(self, key: int) -> None:
        self._live.discard(key)

    def checkpoint(self, key: int) -> Checkpoint:
        return self._runs[key].checkpoint()

    def evict(self, key: int) -> None:
        self._live.discard(key)
        del self._runs[key]
