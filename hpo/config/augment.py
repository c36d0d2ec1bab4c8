"""How training images are changed in each epoch; the strength of a kind of change that is not used is 0."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from hpo.config.fields import STRICT

Probability = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Augment:
    """Random changes of each training image in each epoch, as by torchvision's transforms of similar names."""

    __pydantic_config__ = STRICT
    flip: Probability = 0.0
    """Probability of a horizontal flip."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Pixels of black padding on each side, before a crop at a random position (RandomCrop with padding)."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest angle of rotation in degrees, to either side, bilinear."""
    erase: Probability = 0.0
    """Probability that a rectangle of 2 to 33 % of the image becomes black (RandomErasing's ranges)."""
    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Brightness, contrast and, for colour images, saturation are multiplied by factors in 1 - jitter..1 + jitter."""

    def __bool__(self) -> bool:
        return any((self.flip, self.shift, self.rotate, self.erase, self.jitter))
