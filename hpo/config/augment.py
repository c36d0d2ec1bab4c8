"""How training images are changed from epoch to epoch; strengths are 0 for a kind that is not used."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from hpo.config.fields import STRICT

Probability = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Augment:
    """What is done to each training image in each epoch, as torchvision's transforms of like names do it."""

    __pydantic_config__ = STRICT
    flip: Probability = 0.0
    """Probability of being mirrored left to right."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Pixels: padded with black by so many on each side, then cropped at random (RandomCrop with padding)."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Degrees: turned by an angle from -rotate to rotate, bilinear."""
    erase: Probability = 0.0
    """Probability that a rectangle of 2 to 33 % of the image becomes black (RandomErasing's ranges)."""
    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Brightness, contrast and, of coloured images, saturation are multiplied by 1 - jitter to 1 + jitter."""

    def __bool__(self) -> bool:
        return any((self.flip, self.shift, self.rotate, self.erase, self.jitter))
