"""The fields of a search space: each is a constant, a range, or a list of choices; and how a field is drawn."""

import math
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeAlias, TypeVar, cast

import pydantic
from pydantic import AfterValidator, Discriminator, Tag, model_validator

from hpo.documents import Section
from hpo.suggesters import FixedSuggester, Suggester

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Range(Section, Generic[T_co]):
    """Numbers from low to high, both included."""

    low: T_co
    high: T_co


class IntRange(Range[int]):
    """Integers from low to high, both included."""

    low: int
    high: int
    step: Annotated[int, pydantic.Field(ge=1)] = 1
    log: bool = False
    shared: bool = False
    """Drawn once for all layers instead of once per layer."""

    @model_validator(mode="after")
    def _consistent(self) -> "IntRange":
        _check_bounds(self.low, self.high, log=self.log)
        if self.log and self.step != 1:
            raise ValueError(f"log needs step = 1, got step={self.step}.")
        if (self.high - self.low) % self.step:
            raise ValueError(
                f"high - low must be a multiple of step, got low={self.low}, high={self.high}, step={self.step}."
            )
        return self


class FloatRange(Range[float]):
    """Numbers from low to high, both included: all of them, or with `step` its multiples above low."""

    low: Annotated[float, pydantic.Field(allow_inf_nan=False)]
    high: Annotated[float, pydantic.Field(allow_inf_nan=False)]
    step: Annotated[float, pydantic.Field(gt=0)] | None = None
    log: bool = False
    shared: bool = False
    """Drawn once for all layers instead of once per layer."""

    @model_validator(mode="after")
    def _consistent(self) -> "FloatRange":
        _check_bounds(self.low, self.high, log=self.log)
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


def _check_bounds(low: float, high: float, *, log: bool) -> None:
    if low > high:
        raise ValueError(f"low must be <= high, got low={low}, high={high}.")
    if log and low <= 0:
        raise ValueError(f"log needs low > 0, got low={low}.")


class Choices(Section, Generic[T_co]):
    """One of a list of values."""

    choices: Annotated[list[T_co], pydantic.Field(min_length=1)]
    shared: bool = False
    """Drawn once for all layers instead of once per layer."""

    @model_validator(mode="after")
    def _distinct(self) -> "Choices[T_co]":
        if len(set(self.choices)) < len(self.choices):
            raise ValueError(f"choices must differ from one another, got {self.choices}.")
        return self


def _form(value: Any) -> str:
    """Return which form of a field a value has: a table of a document, or one that was read before."""
    if isinstance(value, dict):
        return "choices" if "choices" in value else "range"
    if isinstance(value, Choices):
        return "choices"
    return "range" if isinstance(value, Range) else "constant"


_BY_FORM = Discriminator(
    _form,
    custom_error_type="no_order",
    custom_error_message="must be a value or { choices = [...] }: it has no order to range over",
)
_RANGES: dict[Any, type[Range[Any]]] = {int: IntRange, float: FloatRange}

if TYPE_CHECKING:
    Field: TypeAlias = T | Range[T] | Choices[T]
else:

    class Field:
        """`Field[T]`: the type of a field of a space whose values have type T, such as `int` or a `Literal`.

        It is a constant of type T, choices of it, or, for int and float, a range.
        """

        def __class_getitem__(cls, kind: Any) -> Any:
            """Return the type as pydantic reads it: a union whose form decides."""
            forms = Annotated[kind, Tag("constant")]
            if kind in _RANGES:
                forms = forms | Annotated[_RANGES[kind], Tag("range")]
            return Annotated[forms | Annotated[Choices[kind], Tag("choices")], _BY_FORM]


Integer = Field[int]
Number = Field[float]
Flag = Field[bool]


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
"""A parameter of the user's code, of any type. A range with integer bounds and step is a range of integers."""


def within(low: float, high: float = math.inf, *, open_low: bool = False, open_high: bool = False) -> AfterValidator:
    """Return a validator: every value that the field can have is in this interval."""

    def check(field: Field[float]) -> Field[float]:
        for value in extremes(field):
            if value < low or value > high or (open_low and value == low) or (open_high and value == high):
                lower = f"{'>' if open_low else '>='} {low:g}"
                upper = "" if high == math.inf else f" and {'<' if open_high else '<='} {high:g}"
                raise ValueError(f"must be {lower}{upper}, got {value:g}.")
        return field

    return AfterValidator(check)


def values_of(field: Field[T]) -> list[T]:
    """Return the choices of a field that is no range, or its constant."""
    return list(field.choices) if isinstance(field, Choices) else [cast(T, field)]


def extremes(field: Field[T]) -> list[T]:
    """Return values of a field such that all its values are between the smallest and the largest of them."""
    return [field.low, field.high] if isinstance(field, Range) else values_of(field)


def is_shared(field: Field[T]) -> bool:
    """Return whether a field is drawn once for all layers."""
    return isinstance(field, IntRange | FloatRange | Choices) and field.shared


def pick(field: Field[T], name: str, suggester: Suggester) -> T:
    """Return a value of a field: of a range or choices, the suggester's under this name; of a constant, itself."""
    value: Any = field
    match field:
        case IntRange():
            value = suggester.suggest_int(name, field.low, field.high, step=field.step, log=field.log)
        case FloatRange(step=None):
            value = suggester.suggest_float(name, field.low, field.high, log=field.log)
        case FloatRange():
            # Rounded, so that a multiple of 0.05 is 0.15 instead of 0.15000000000000002.
            value = round(suggester.suggest_float(name, field.low, field.high, step=field.step), 10)
        case Choices():
            value = suggester.suggest_categorical(name, field.choices)
    return cast(T, value)


def allows(field: Field[T], value: T) -> bool:
    """Return whether a field can have a value."""
    try:
        return bool(pick(field, "field", FixedSuggester({"field": value})) == value)
    except ValueError:
        return False
