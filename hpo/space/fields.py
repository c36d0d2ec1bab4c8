"""What several sections of a space may hold."""

from typing import Annotated

from hpo.ranges import Integer, Number, within

Rate = Annotated[Number, within(0, 1, open_high=True)]
Probability = Annotated[Number, within(0, 1)]
Size = Annotated[Integer, within(1)]
Share = Annotated[Number, within(0, 1, open_low=True, open_high=True)]
