"""The queue of an engine's units: whose turn it is, which have an epoch under way, and how much is in use."""

import time
from collections.abc import Iterator, Sequence

import torch

from hpo.training.packed.scheduling.lane import Lane
from hpo.training.packed.scheduling.unit import Unit

WAIT_SECONDS = 2e-4
"""Time between two looks at whether an epoch is computed: a small part of the shortest ones."""


class UnitQueue:
    """The units of an engine, in the order of their turns.

    On a CPU one unit has a turn. On a GPU all compute at the same time, and each starts its next epoch without waiting
    for the others.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._units: list[Unit] = []
        self._under_way: list[Unit] = []
        """Units whose epoch is launched and not collected."""
        self._busy = self._offered = 0.0

    def __iter__(self) -> Iterator[Unit]:
        return iter(list(self._units))

    def add(self, unit: Unit) -> None:
        """Add a unit at the end."""
        self._units.append(unit)

    def remove(self, unit: Unit) -> None:
        """Remove a unit."""
        self._units.remove(unit)

    def lanes(self) -> list[Lane]:
        """Return the units that are lanes."""
        return [unit for unit in self._units if isinstance(unit, Lane)]

    def unit_of(self, key: int) -> Unit:
        """Return the unit that holds a trial."""
        return next(unit for unit in self._units if key in unit.trials())

    def trial_count(self) -> int:
        """Return the number of trials in all units."""
        return sum(len(unit.trials()) for unit in self._units)

    def next_turn(self) -> list[Unit]:
        """Return the units to launch, and on a CPU move the unit to the end; empty if none has live trials."""
        turn = [unit for unit in self._units if unit.live() and unit not in self._under_way]
        if self.device.type == "cpu" and turn:
            turn = turn[:1]
            self.remove(turn[0])
            self.add(turn[0])
        return turn

    def launched(self, unit: Unit) -> None:
        """Note that a unit has an epoch under way."""
        self._under_way.append(unit)

    def is_under_way(self, unit: Unit) -> bool:
        """Return whether a unit has an epoch under way."""
        return unit in self._under_way

    def collected(self, unit: Unit) -> None:
        """Note that a unit has no epoch under way any more."""
        self._under_way.remove(unit)

    def wait(self) -> list[Unit]:
        """Return the units whose epoch under way is computed; wait for the first. Empty if none is under way."""
        while True:
            done = [unit for unit in self._under_way if unit.is_done()]
            if done or not self._under_way:
                return done
            time.sleep(WAIT_SECONDS)

    def seconds_of(self, lanes: Sequence[Lane]) -> float | None:
        """Return the duration of the latest epoch of lanes together; None if one of them has no usable measurement.

        On a GPU lanes are trained at the same time: then it is that of the slowest.
        """
        known = [lane.seconds for lane in lanes if lane.seconds is not None]
        if len(known) < len(lanes):
            return None
        return max(known) if self.device.type != "cpu" else sum(known)

    def note_use(self, *, trials: int, slots: int, seconds: float) -> None:
        """Note that so many of the engine's slots held a trial for a time, in which there was a shared unit."""
        if any(unit.shared for unit in self._units):
            self._busy, self._offered = self._busy + trials * seconds, self._offered + slots * seconds

    def status(self) -> dict[str, float]:
        """Return the number of `lanes`, and the mean `occupancy` of the slots (0 to 1) once it is known."""
        lanes = sum(lane.shared for lane in self.lanes())
        return {"lanes": lanes} | ({"occupancy": round(self._busy / self._offered, 3)} if self._offered else {})
