"""Units: what the packed engine schedules. A lane is one, and so is a trial that is trained by itself."""

from typing import Protocol

from hpo.training.engine import Checkpoint, EpochResult, Fault
from hpo.training.epoch import Run


class Unit(Protocol):
    """One or several trials that train their epochs together, in one turn."""

    @property
    def shared(self) -> bool:
        """Whether further trials cost little time: several are trained at once, not one after another."""
        ...

    def trials(self) -> list[int]:
        """Return the keys of the trials held."""
        ...

    def live(self) -> list[int]:
        """Return the keys of the trials that have epochs left to train."""
        ...

    def launch(self) -> None:
        """Start the next epoch of all live trials; on a GPU this does not wait for it."""
        ...

    def is_done(self) -> bool:
        """Return whether `collect` would not wait for the steps of the epoch that was launched."""
        ...

    def collect(self) -> dict[int, EpochResult | Fault]:
        """Finish the epoch that was launched; return its outcome for each trial that took part."""
        ...

    def graph_failure(self) -> str:
        """Return why the steps are taken one by one although a CUDA graph was wanted; empty otherwise."""
        ...

    def end(self, key: int) -> None:
        """End the training of a trial; its state stays until it is evicted."""
        ...

    def checkpoint(self, key: int) -> Checkpoint:
        """Return a trial's state after its latest completed epoch."""
        ...

    def evict(self, key: int) -> None:
        """Remove a trial and its state."""
        ...


class SingleRun:
    """A unit of one trial, trained as the solo engine does."""

    def __init__(self, key: int, run: Run, *, concurrent: bool = False) -> None:
        """`concurrent` says that on a GPU, where each run has a stream of its own, other units compute meanwhile.

        Without CUDA, concurrent units take turns nevertheless.
        """
        self.shared = concurrent
        self._runs = {key: run}
        self._live = {key}

    def trials(self) -> list[int]:
        """Return the trial's key; nothing once it is evicted."""
        return list(self._runs)

    def live(self) -> list[int]:
        """Return the trial's key while it has epochs left to train."""
        return list(self._live)

    def launch(self) -> None:
        """Start the trial's next epoch."""
        for key in self._live:
            self._runs[key].launch()

    def is_done(self) -> bool:
        """Return whether `collect` would not wait for the steps of the epoch that was launched."""
        return all(self._runs[key].is_done() for key in self._live)

    def collect(self) -> dict[int, EpochResult | Fault]:
        """Finish the epoch that was launched; return its outcome."""
        return {key: self._runs[key].collect() for key in self._live}

    def graph_failure(self) -> str:
        """Return why the steps are taken one by one although a CUDA graph was wanted; empty otherwise."""
        return next((run.graph_failure for run in self._runs.values()), "")

    def end(self, key: int) -> None:
        """End the trial's training."""
        self._live.discard(key)

    def checkpoint(self, key: int) -> Checkpoint:
        """Return the trial's state after its latest completed epoch."""
        return self._runs[key].checkpoint()

    def evict(self, key: int) -> None:
        """Remove the trial."""
        self._live.discard(key)
        del self._runs[key]
