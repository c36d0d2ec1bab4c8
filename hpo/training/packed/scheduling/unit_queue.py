"""The queue of an engine's units: whose turn it is, how long a turn takes, and how much of the engine is in use."""

from collections.abc import Iterator, Sequence

import torch

from hpo.training.packed.scheduling.lane import Lane
from hpo.training.packed.scheduling.unit import Unit


class UnitQueue:
    """The units of an engine, in the order of their turns. On a CPU one unit has a turn, on a GPU all at once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.turn_seconds = 0.0
        """Duration of the latest turn."""
        self._units: list[Unit] = []
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
        """Return the units whose turn it is, and on a CPU move the unit to the end; empty if none has live trials."""
        turn = [unit for unit in self._units if unit.live()]
        if self.device.type == "cpu" and turn:
            turn = turn[:1]
            self.remove(turn[0])
            self.add(turn[0])
        return turn

    def seconds_of(self, lanes: Sequence[Lane]) -> float | None:
        """Return the duration of the latest epoch of lanes together; None if one of them has no usable measurement.

        On a GPU lanes are trained at the same time: then it is the duration of the latest turn.
        """
        seconds = [lane.seconds for lane in lanes]
        if None in seconds:
            return None
        return self.turn_seconds if self.device.type != "cpu" else sum(s for s in seconds if s is not None)

    def note_use(self, *, trials: int, slots: int, seconds: float) -> None:
        """Note that so many of the engine's slots held a trial for a time, in which there was a shared unit."""
        if any(unit.shared for unit in self._units):
            self._busy, self._offered = self._busy + trials * seconds, self._offered + slots * seconds

    def status(self) -> dict[str, float]:
        """Return the number of `lanes`, and the mean `occupancy` of the slots (0 to 1) once it is known."""
        lanes = sum(lane.shared for lane in self.lanes())
        return {"lanes": lanes} | ({"occupancy": round(self._busy / self._offered, 3)} if self._offered else {})
