"""Configs of learning-rate schedules; `hpo.training.schedules` computes the learning rate of a step from them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from hpo.config.fields import STRICT, Count, Rate, Share


@dataclass(frozen=True)
class Constant:
    """A constant learning rate."""

    __pydantic_config__ = STRICT
    name: Literal["none"] = "none"


@dataclass(frozen=True)
class Cosine:
    """The learning rate falls along half a cosine, from lr to `floor` * lr."""

    __pydantic_config__ = STRICT
    floor: Rate = 0.0
    name: Literal["cosine"] = "cosine"


@dataclass(frozen=True)
class OneCycle:
    """The learning rate rises from lr / 25 to lr in the first `warmup` share of all steps, then falls to almost zero.

    Both follow half a cosine; the factors 1 / 25, and 1e-4 of the start for the end, are those of torch's OneCycleLR.
    """

    __pydantic_config__ = STRICT
    warmup: Share = 0.3
    name: Literal["one_cycle"] = "one_cycle"


@dataclass(frozen=True)
class StepDecay:
    """The training has `parts` equal parts; after each, the learning rate is multiplied by `gamma`."""

    __pydantic_config__ = STRICT
    parts: Annotated[int, Field(ge=2)] = 3
    gamma: Share = 0.1
    name: Literal["step"] = "step"


@dataclass(frozen=True)
class Exponential:
    """The learning rate falls by the same factor at each step, from lr to `final` * lr at the last step."""

    __pydantic_config__ = STRICT
    final: Share = 0.01
    name: Literal["exponential"] = "exponential"


@dataclass(frozen=True)
class WarmupCosine:
    """Learning rate rises linearly in the first `warmup` share of all steps, then falls along half a cosine to 0."""

    __pydantic_config__ = STRICT
    warmup: Share = 0.05
    name: Literal["warmup_cosine"] = "warmup_cosine"


@dataclass(frozen=True)
class Plateau:
    """The learning rate is multiplied by `gamma` whenever the validation loss has not improved for `patience` epochs.

    An improvement is one of at least 1e-4 of the best, as in torch's ReduceLROnPlateau.
    """

    __pydantic_config__ = STRICT
    patience: Count = 3
    gamma: Share = 0.3
    name: Literal["plateau"] = "plateau"


Schedule = Constant | Cosine | OneCycle | StepDecay | Exponential | WarmupCosine | Plateau

SCHEDULES: dict[str, type[Schedule]] = {
    "none": Constant,
    "cosine": Cosine,
    "one_cycle": OneCycle,
    "step": StepDecay,
    "exponential": Exponential,
    "warmup_cosine": WarmupCosine,
    "plateau": Plateau,
}
