"""What a field of a space may be: a constant, a range, or a list of choices - and how each is drawn."""

import math
import random
from collections.abc import Sequence
from typing import Annotated, Any, Generic, Protocol, TypeVar

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from hpo.documents import Section

T = TypeVar("T")


class Suggester(Protocol):
    """Whoever chooses values; Optuna's `Trial`, `FixedTrial` and `FrozenTrial` satisfy it as they are."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


class IntRange(Section):
    """Whole numbers from low to high, both included."""

    low: int
    high: int
    step: Annotated[int, Field(ge=1)] = 1
    log: bool = False
    shared: bool = False
    """Drawn once for all layers instead of once per layer."""

    @model_validator(mode="after")
    def _consistent(self) -> "IntRange":
        _check_bounds(self.low, self.high, self.log)
        if self.log and self.step != 1:
            raise ValueError(f"log needs step = 1, got step={self.step}.")
        if (self.high - self.low) % self.step:
            raise ValueError(
                f"high - low must be a multiple of step, got low={self.low}, high={self.high}, step={self.step}."
            )
        return self


class FloatRange(Section):
    """Numbers from low to high, both included; every one, or those a whole number of steps above low."""

    low: Annotated[float, Field(allow_inf_nan=False)]
    high: Annotated[float, Field(allow_inf_nan=False)]
    step: Annotated[float, Field(gt=0)] | None = None
    log: bool = False
    shared: bool = False
    """Drawn once for all layers instead of once per layer."""

    @model_validator(mode="after")
    def _consistent(self) -> "FloatRange":
        _check_bounds(self.low, self.high, self.log)
        if self.step is None:
            return self
        if self.log:
            raise ValueError(f"log and step exclude each other, got step={self.step}.")
        steps = (self.high - self.low) / self.step
        if abs(steps - round(steps)) > 1e-6:
            raise ValueError(
                f"high - low must be a multiple of step, got low={self.low}, high={self.high}, step={self.step}."
            )
        return self


def _check_bounds(low: float, high: float, log: bool) -> None:
    if low > high:
        raise ValueError(f"low must be <= high, got low={low}, high={high}.")
    if log and low <= 0:
        raise ValueError(f"log needs low > 0, got low={low}.")


class Choices(Section, Generic[T]):
    """One of a list of values."""

    choices: Annotated[list[T], Field(min_length=1)]
    shared: bool = False
    """Drawn once for all layers instead of once per layer."""

    @model_validator(mode="after")
    def _distinct(self) -> "Choices[T]":
        if len(set(self.choices)) < len(self.choices):
            raise ValueError(f"choices must differ from one another, got {self.choices}.")
        return self


def _form(value: Any) -> str:
    if isinstance(value, dict):
        return "choices" if "choices" in value else "range"
    return {Choices: "choices", IntRange: "range", FloatRange: "range"}.get(_class(value), "constant")


def _class(value: Any) -> Any:
    return Choices if isinstance(value, Choices) else type(value)


_BY_FORM = Discriminator(
    _form,
    custom_error_type="no_order",
    custom_error_message="must be a value or { choices = [...] }: it has no order to range over",
)

Integer = Annotated[
    Annotated[int, Tag("constant")] | Annotated[IntRange, Tag("range")] | Annotated[Choices[int], Tag("choices")],
    _BY_FORM,
]
Number = Annotated[
    Annotated[float, Tag("constant")] | Annotated[FloatRange, Tag("range")] | Annotated[Choices[float], Tag("choices")],
    _BY_FORM,
]
Flag = Annotated[Annotated[bool, Tag("constant")] | Annotated[Choices[bool], Tag("choices")], _BY_FORM]


def _param_form(value: Any) -> str:
    if isinstance(value, dict) and "choices" not in value:
        numbers = (value.get("low"), value.get("high"), value.get("step", 1))
        return "integers" if all(isinstance(number, int) for number in numbers) else "numbers"
    if isinstance(value, dict | Choices):
        return "choices"
    return {IntRange: "integers", FloatRange: "numbers"}.get(type(value), "constant")


Scalar = bool | int | float | str
Param = Annotated[
    Annotated[Scalar, Tag("constant")]
    | Annotated[IntRange, Tag("integers")]
    | Annotated[FloatRange, Tag("numbers")]
    | Annotated[Choices[Scalar], Tag("choices")],
    Discriminator(_param_form),
]
"""A field whose meaning only the user's own code knows: whole bounds make a range of whole numbers."""


def one_of(values: Any) -> Any:
    """Return the field type for one of a Literal's values, or a list of them to choose from."""
    return Annotated[
        Annotated[values, Tag("constant")] | Annotated[Choices[values], Tag("choices")],
        _BY_FORM,
    ]


def within(low: float, high: float = float("inf"), *, open_low: bool = False, open_high: bool = False) -> Any:
    """Return a validator: every value that the field can take lies in this interval."""

    def check(field: Any) -> Any:
        for value in extremes(field):
            if value < low or value > high or (open_low and value == low) or (open_high and value == high):
                lower = f"{'>' if open_low else '>='} {low:g}"
                upper = "" if high == float("inf") else f" and {'<' if open_high else '<='} {high:g}"
                raise ValueError(f"must be {lower}{upper}, got {value:g}.")
        return field

    return AfterValidator(check)


def values_of(field: Any) -> list[Any]:
    """Return all values of a constant or list of choices."""
    return list(field.choices) if isinstance(field, Choices) else [field]


def extremes(field: Any) -> list[Any]:
    """Return values between which everything that the field can be drawn as lies."""
    if isinstance(field, IntRange | FloatRange):
        return [field.low, field.high]
    return values_of(field)


def pick(field: Any, name: str, suggester: Suggester) -> Any:
    """Draw a field: ranges and choices ask the suggester under this name, a constant is itself."""
    match field:
        case IntRange():
            return suggester.suggest_int(name, field.low, field.high, step=field.step, log=field.log)
        case FloatRange(step=None):
            return suggester.suggest_float(name, field.low, field.high, log=field.log)
        case FloatRange():
            # A multiple of 0.05 shall read 0.15, not 0.15000000000000002.
            return round(suggester.suggest_float(name, field.low, field.high, step=field.step), 10)
        case Choices():
            return suggester.suggest_categorical(name, field.choices)
        case constant:
            return constant


class FixedSuggester:
    """A suggester that gives back named values, each checked against the range it is asked for."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.used: set[str] = set()

    def _take(self, name: str) -> Any:
        if name not in self.values:
            raise ValueError(f"{name}: is required. Add it.")
        self.used.add(name)
        return self.values[name]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        value = self._take(name)
        if not isinstance(value, int) or not low <= value <= high or (value - low) % step:
            raise ValueError(f"{name}: must lie in {low}..{high} in steps of {step}, got {value!r}.")
        return value

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        value = self._take(name)
        steps = (value - low) / step if step and isinstance(value, int | float) else 0.0
        if not isinstance(value, int | float) or not low <= value <= high or abs(steps - round(steps)) > 1e-6:
            in_steps = f" in steps of {step:g}" if step else ""
            raise ValueError(f"{name}: must lie in {low:g}..{high:g}{in_steps}, got {value!r}.")
        return float(value)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        value = self._take(name)
        if value not in choices:
            raise ValueError(f"{name}: must be one of {list(choices)}, got {value!r}.")
        return value


def allows(field: Any, value: Any) -> bool:
    """Say whether a field can be drawn as a value."""
    try:
        return bool(pick(field, "field", FixedSuggester({"field": value})) == value)
    except ValueError:
        return False


class RandomSuggester:
    """A suggester that draws uniformly (in the logarithm where told so); for examples and checks."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.drawn: dict[str, Any] = {}

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        if name not in self.drawn:
            logarithmic = round(math.exp(self._random.uniform(math.log(max(low, 1)), math.log(max(high, 1)))))
            self.drawn[name] = logarithmic if log else self._random.randrange(low, high + 1, step)
        value: int = self.drawn[name]
        return value

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
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
        if name not in self.drawn:
            self.drawn[name] = self._random.choice(choices)
        return self.drawn[name]
