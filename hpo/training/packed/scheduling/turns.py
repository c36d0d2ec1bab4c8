"""The turns of an engine's units: epochs that are launched, collected, and ended before anything else is done."""

import logging
from collections.abc import Callable

from hpo.training.engine import EpochResult, Fault
from hpo.training.packed.layout.bucket import Bucket
from hpo.training.packed.scheduling.lane import Lane
from hpo.training.packed.scheduling.merging import Merging
from hpo.training.packed.scheduling.unit import Unit
from hpo.training.packed.scheduling.unit_queue import UnitQueue
from hpo.training.solo import fault_of

_log = logging.getLogger(__name__)


class Turns:
    """Has the units of a queue train their epochs. A unit is changed by others only between two epochs."""

    def __init__(self, units: UnitQueue, limit: Callable[[Bucket, int], None]) -> None:
        """`limit` is called with a bucket whose lanes ran out of memory, and how many trials they hold then."""
        self.units, self._limit = units, limit
        self.merging = Merging(units.seconds_of)
        self._kept: dict[int, EpochResult | Fault] = {}
        """Outcomes that the next step returns."""

    def step(self) -> dict[int, EpochResult | Fault]:
        """Train until an epoch of a unit is computed; return the outcome of each trial in it.

        On a CPU that is the unit whose turn it is. On a GPU all others have an epoch under way.
        """
        if not self._kept:
            self._merge()
        outcomes, self._kept = self._kept, {}
        while not outcomes:
            turn = self.units.next_turn()
            for unit in turn:
                if self._guarded(unit, unit.launch, outcomes):
                    self.units.launched(unit)
            done = self.units.wait()
            for unit in done:
                self._collect(unit, outcomes)
            if not turn and not done:
                break
        self._end_faulty(outcomes)
        return outcomes

    def between_epochs(self, key: int) -> Unit:
        """Return the unit that holds a trial, with no epoch under way."""
        self._finish(self.units.unit_of(key))
        return self.units.unit_of(key)  # a lane that runs out of memory at the end of its epoch is halved

    def evict(self, key: int) -> None:
        """Remove a trial, and its unit if that holds no other."""
        unit = self.between_epochs(key)
        self._kept.pop(key, None)
        unit.evict(key)
        if not unit.trials():
            self.units.remove(unit)

    def _merge(self) -> None:
        """Merge two lanes if that may be faster; if they have epochs under way, these end first, and no more."""
        pair = self.merging.pair(self.units.lanes())
        if pair is None:
            return
        for lane in pair:
            self._finish(lane)
        if not self._kept:
            self.merging.merge(*pair)
            self.units.remove(pair[0])

    def _finish(self, unit: Unit) -> None:
        """Have a unit complete the epoch that it has under way; the next step returns the outcome."""
        if self.units.is_under_way(unit):
            self._collect(unit, self._kept)
            self._end_faulty(self._kept)

    def _collect(self, unit: Unit, outcomes: dict[int, EpochResult | Fault]) -> None:
        """Add the outcomes of a unit's epoch, for which this waits."""
        self.units.collected(unit)
        self._guarded(unit, lambda: outcomes.update(unit.collect()), outcomes)
        if (separated := self.merging.decide()) is not None:
            self.units.add(separated)

    def _end_faulty(self, outcomes: dict[int, EpochResult | Fault]) -> None:
        for key, outcome in outcomes.items():
            if isinstance(outcome, Fault):
                self.units.unit_of(key).end(key)

    def _guarded(self, unit: Unit, action: Callable[[], None], outcomes: dict[int, EpochResult | Fault]) -> bool:
        """Call an action of a unit; return whether it succeeded.

        A lane that ran out of memory is split into halves; one of a single trial gets a single slot. Any other error is
        the fault of each of its live trials.
        """
        try:
            action()
            return True
        except (RuntimeError, ValueError, MemoryError) as error:
            fault = fault_of(error)
        # Only here, where the error is gone and with it the tensors of the step that failed, is their memory free.
        if fault.kind == "oom" and isinstance(unit, Lane) and unit.slots > 1:
            if (half := unit.split()).trials():
                self.units.add(half)
            self._limit(unit.bucket, unit.slots)
            _log.warning("out of memory: lanes of %s now hold %d trials", unit.bucket, unit.slots)
        else:
            outcomes.update(dict.fromkeys(unit.live(), fault))
        return False
