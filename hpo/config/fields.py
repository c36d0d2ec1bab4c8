"""Types of the fields of configs."""

from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Share = Annotated[float, Field(gt=0, lt=1)]

STRICT = ConfigDict(extra="forbid")
FROM_LIST = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
"""Accepts a list for a tuple, which strict validation does not do for values that are Python objects already."""
