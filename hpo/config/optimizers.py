"""Optimizers with their hyperparameters."""

from dataclasses import dataclass
from typing import Literal

from hpo.config.fields import STRICT, NotNegative, Positive, Rate


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent without momentum."""

    __pydantic_config__ = STRICT
    lr: Positive
    weight_decay: NotNegative = 0.0
    name: Literal["sgd"] = "sgd"


@dataclass(frozen=True)
class SGDMomentum:
    """Stochastic gradient descent with momentum, or with Nesterov momentum."""

    __pydantic_config__ = STRICT
    lr: Positive
    weight_decay: NotNegative = 0.0
    momentum: Rate = 0.9
    nesterov: bool = False
    name: Literal["sgd_momentum"] = "sgd_momentum"


@dataclass(frozen=True)
class Adam:
    """Adam; weight decay is added to the gradient."""

    __pydantic_config__ = STRICT
    lr: Positive
    weight_decay: NotNegative = 0.0
    beta1: Rate = 0.9
    beta2: Rate = 0.999
    eps: Positive = 1e-8
    name: Literal["adam"] = "adam"


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay."""

    __pydantic_config__ = STRICT
    lr: Positive
    weight_decay: NotNegative = 0.0
    beta1: Rate = 0.9
    beta2: Rate = 0.999
    eps: Positive = 1e-8
    name: Literal["adamw"] = "adamw"


@dataclass(frozen=True)
class RMSprop:
    """RMSprop; `alpha` smooths the squared gradient."""

    __pydantic_config__ = STRICT
    lr: Positive
    weight_decay: NotNegative = 0.0
    alpha: Rate = 0.99
    eps: Positive = 1e-8
    name: Literal["rmsprop"] = "rmsprop"


Optimizer = SGD | SGDMomentum | Adam | AdamW | RMSprop

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "sgd_momentum": SGDMomentum,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
}
