"""Types of fields that several sections of a space have."""

from typing import Annotated

from hpo.ranges import Field, within

Rate = Annotated[Field[float], within(0, 1, open_high=True)]
Probability = Annotated[Field[float], within(0, 1)]
Size = Annotated[Field[int], within(1)]
Share = Annotated[Field[float], within(0, 1, open_low=True, open_high=True)]
