"""Suggesters: objects that choose a value for each parameter of a search space."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Suggester(Protocol):
    """Chooses values of named parameters. Optuna's `Trial`, `FixedTrial` and `FrozenTrial` satisfy this protocol."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return an integer from low to high, both included, a multiple of `step` above low."""
        ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a number from low to high, both included; with `step`, a multiple of it above low."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of the choices."""
        ...


class FixedSuggester:
    """A suggester that returns given values by name, each checked against the range it is asked for."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.used: set[str] = set()
        """Names of the parameters that were asked for."""

    def _value(self, name: str) -> Any:
        if name not in self.values:
            raise ValueError(f"{name}: is required. Add it.")
        self.used.add(name)
        return self.values[name]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return the value of this name. Raises: ValueError if it is missing or outside the range."""
        value = self._value(name)
        if not isinstance(value, int) or not low <= value <= high or (value - low) % step:
            raise ValueError(f"{name}: must lie in {low}..{high} in steps of {step}, got {value!r}.")
        return value

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return the value of this name. Raises: ValueError if it is missing or outside the range."""
        value = self._value(name)
        steps = (value - low) / step if step and isinstance(value, int | float) else 0.0
        if not isinstance(value, int | float) or not low <= value <= high or abs(steps - round(steps)) > 1e-6:
            in_steps = f" in steps of {step:g}" if step else ""
            raise ValueError(f"{name}: must lie in {low:g}..{high:g}{in_steps}, got {value!r}.")
        return float(value)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return the value of this name. Raises: ValueError if it is missing or none of the choices."""
        value = self._value(name)
        if value not in choices:
            raise ValueError(f"{name}: must be one of {list(choices)}, got {value!r}.")
        return value


class RandomSuggester:
    """A suggester that draws uniformly, with `log` uniformly in the logarithm; for examples and checks."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.drawn: dict[str, Any] = {}
        """Values drawn so far, by name; a name that is asked for again keeps its value."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return a random integer of the range."""
        if name not in self.drawn:
            logarithmic = round(math.exp(self._random.uniform(math.log(max(low, 1)), math.log(max(high, 1)))))
            self.drawn[name] = logarithmic if log else self._random.randrange(low, high + 1, step)
        value: int = self.drawn[name]
        return value

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a random number of the range."""
        if name not in self.drawn:
            if log:
                self.drawn[name] = math.exp(self._random.uniform(math.log(low), math.log(high)))
            elif step is not None:
                self.drawn[name] = low + step * self._random.randint(0, round((high - low) / step))
            else:
                self.drawn[name] = self._random.uniform(low, high)
        value: float = self.drawn[name]
        return value

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return a random choice."""
        if name not in self.drawn:
            self.drawn[name] = self._random.choice(choices)
        return self.drawn[name]
