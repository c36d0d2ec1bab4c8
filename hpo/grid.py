"""A space as a grid: all configurations that its walk can give, each a leaf of the tree of choices."""

from collections.abc import Iterator, Sequence
from typing import Any

from hpo.errors import HpoError, UsageError
from hpo.space import SearchSpace

MAX_SIZE = 20_000
"""Largest size of a grid: more could not be trained, and each worker would have to list them first."""


class _Enumerator:
    """A suggester that takes every path of the tree once, one per walk; the last choice of a path changes first."""

    def __init__(self) -> None:
        self._path: list[list[int]] = []
        """For each choice on the path, the index of the option taken, and the number of options."""
        self._at = 0
        self.drawn: dict[str, Any] = {}
        self.continuous: str | None = None
        """Name of a parameter with infinitely many values, at which the walk stopped."""

    def begin(self) -> None:
        self._at, self.drawn = 0, {}

    def advance(self) -> bool:
        """Move to the next path; return whether there is one."""
        while self._path and self._path[-1][0] + 1 == self._path[-1][1]:
            self._path.pop()
        if self._path:
            self._path[-1][0] += 1
        return bool(self._path)

    def _take(self, name: str, options: Sequence[Any]) -> Any:
        if name not in self.drawn:
            if self._at == len(self._path):
                self._path.append([0, len(options)])
            self.drawn[name] = options[self._path[self._at][0]]
            self._at += 1
        return self.drawn[name]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        value: int = self._take(name, range(low, high + 1, step))
        return value

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if step is None and low != high:
            self.continuous = name
            raise ValueError(f"{name}: has no steps")
        steps = round((high - low) / step) if step is not None else 0
        value: float = self._take(name, [round(low + i * (step or 0.0), 10) for i in range(steps + 1)])
        return value

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._take(name, choices)


def leaves(space: SearchSpace) -> Iterator[dict[str, Any]]:
    """Yield the draws of every configuration of a space, in the order of the walk.

    Raises: UsageError for a range without steps.
    """
    enumerator, more = _Enumerator(), True
    while more:
        enumerator.begin()
        try:
            space.draw(enumerator, seed=0)
        except (ValueError, HpoError):
            if enumerator.continuous is None:
                raise
            raise UsageError(
                f"sampler.name: grid needs a space without continuous ranges, got {enumerator.continuous}. "
                "Give it choices or a step, or take another sampler."
            ) from None
        yield dict(enumerator.drawn)
        more = enumerator.advance()


def grid(space: SearchSpace) -> list[dict[str, Any]]:
    """Return the draws of every configuration of a space. Raises: UsageError if they are too many or not countable."""
    draws = []
    for leaf in leaves(space):
        draws.append(leaf)
        if len(draws) > MAX_SIZE:
            raise UsageError(
                f"sampler.name: grid must have at most {MAX_SIZE:,} configurations, got more. "
                "Take larger steps or fewer choices, or another sampler."
            )
    return draws


def key_of(draws: dict[str, Any]) -> frozenset[tuple[str, Any]]:
    """Return a key that is equal for equal draws, also if rounding makes their numbers differ slightly."""
    return frozenset((name, float(f"{v:.10g}") if isinstance(v, float) else v) for name, v in draws.items())
