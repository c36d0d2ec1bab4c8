"""Configs of averaged weights; `hpo.training.averages` computes the averages."""

from dataclasses import dataclass
from typing import Literal

from hpo.config.fields import STRICT, Positive


@dataclass(frozen=True)
class NoAverage:
    """The weights of the latest step are validated and kept."""

    __pydantic_config__ = STRICT
    name: Literal["none"] = "none"


@dataclass(frozen=True)
class EMA:
    """An exponential moving average of the weights after each step is validated and kept.

    Batch norm's statistics are averaged too. The training goes on with the plain weights.
    """

    __pydantic_config__ = STRICT
    horizon: Positive = 0.5
    """The weights after a step count for 1/e as much as those so many epochs later."""
    name: Literal["ema"] = "ema"


Average = NoAverage | EMA
