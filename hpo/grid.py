"""A space as a grid: all configurations that its walk can lead to, one leaf of the walk's tree each."""

from collections.abc import Iterator, Sequence
from typing import Any

from hpo.errors import HpoError, UsageError
from hpo.space import SearchSpace

MAX_SIZE = 20_000
"""A grid larger than this is refused: nobody trains so many, and each worker would have to list them first."""


class _Enumerator:
    """A suggester that, walk after walk, takes every path once: the last choice of a path changes first."""

    def __init__(self) -> None:
        self._path: list[list[int]] = []
        """Of each choice on the path: which option was taken, and how many there are."""
        self._at = 0
        self.drawn: dict[str, Any] = {}
        self.continuous: str | None = None
        """A parameter with more values than can be listed; walks end where they meet it."""

    def begin(self) -> None:
        self._at, self.drawn = 0, {}

    def advance(self) -> bool:
        """Move to the next path; say whether there is one."""
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
    found = []
    for leaf in leaves(space):
        found.append(leaf)
        if len(found) > MAX_SIZE:
            raise UsageError(
                f"sampler.name: grid must have at most {MAX_SIZE:,} configurations, got more. "
                "Take larger steps or fewer choices, or another sampler."
            )
    return found


def key_of(draws: dict[str, Any]) -> frozenset[tuple[str, Any]]:
    """Return what two draws of one configuration have in common, however their numbers were computed."""
    return frozenset((name, float(f"{v:.10g}") if isinstance(v, float) else v) for name, v in draws.items())
