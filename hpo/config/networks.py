"""Configs of networks: their structure, not their weights."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from hpo.config.fields import STRICT, Count, Rate
from hpo.errors import ModelError

Activation = Literal["relu", "leaky_relu", "gelu", "tanh", "sigmoid"]
Norm = Literal["none", "batch", "layer"]
Pool = Literal["max", "avg", "none"]
Head = Literal["average", "flatten"]
Init = Literal["default", "xavier", "kaiming", "orthogonal"]
"""Initial weights: torch's default; Xavier uniform, Kaiming (He) normal or orthogonal, with biases 0."""


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron: each hidden layer is linear, norm, activation, dropout."""

    __pydantic_config__ = STRICT
    widths: tuple[Count, ...]
    dropout: tuple[Rate, ...]
    """One dropout rate per hidden layer."""
    activation: Activation = "relu"
    norm: Norm = "none"
    residual: bool = False
    """Each hidden layer but the first adds its input, linearly projected where the width changes."""
    init: Init = "default"
    family: Literal["mlp"] = "mlp"

    def __post_init__(self) -> None:
        _one_per_layer("layer", widths=self.widths, dropout=self.dropout)

    def summary(self) -> str:
        """Return a description in a few words."""
        return _words(f"MLP {'-'.join(map(str, self.widths))}", self)


@dataclass(frozen=True)
class CNN:
    """A convolutional network: stages of convolutions, pooling by two and dropout, then a head."""

    __pydantic_config__ = STRICT
    channels: tuple[Count, ...]
    dropout: tuple[Rate, ...]
    """One dropout rate per stage, for whole channels."""
    convs: tuple[Count, ...] = ()
    """Number of convolutions per stage, each followed by norm and activation; empty for one per stage."""
    pool: tuple[Pool, ...] = ()
    """Kind of pooling by 2 at the end of each stage, or "none"; empty for max pooling in each stage."""
    kernel: Annotated[int, Field(ge=1)] = 3
    """Width and height of the convolutions, odd; padding keeps the size of the image."""
    head: Head = "average"
    """How the last stage is turned into features: averages over the image, or all values, flattened."""
    head_size: Count = 1
    """Width and height of the output of adaptive average pooling, with the head `average`."""
    head_width: Annotated[int, Field(ge=0)] = 0
    """Width of a dense layer before the output; 0 for none."""
    head_dropout: Rate = 0.0
    activation: Activation = "relu"
    norm: Norm = "none"
    residual: bool = False
    """Each stage but the first adds its input before pooling, projected by a 1x1 convolution where channels change."""
    init: Init = "default"
    family: Literal["cnn"] = "cnn"

    def __post_init__(self) -> None:
        stages = len(self.channels)
        object.__setattr__(self, "convs", self.convs or (1,) * stages)
        object.__setattr__(self, "pool", self.pool or ("max",) * stages)
        _one_per_layer("stage", channels=self.channels, dropout=self.dropout, convs=self.convs, pool=self.pool)
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {self.kernel}.")

    @property
    def halvings(self) -> int:
        """Number of stages that halve the image."""
        return sum(pool != "none" for pool in self.pool)

    def summary(self) -> str:
        """Return a description in a few words."""
        convs = f" x{'/'.join(str(count) for count in dict.fromkeys(self.convs))}" if max(self.convs) > 1 else ""
        return _words(f"CNN {'-'.join(map(str, self.channels))}{convs}", self)


def _words(name: str, network: "MLP | CNN") -> str:
    dropout = "/".join(f"{rate:g}" for rate in dict.fromkeys(network.dropout) if rate > 0)
    parts = [
        f"{name} {network.activation}",
        f"{network.norm} norm" if network.norm != "none" else "",
        "residual" if network.residual else "",
        f"{network.init} init" if network.init != "default" else "",
        f"dropout {dropout}" if dropout else "",
    ]
    return ", ".join(part for part in parts if part)


def _one_per_layer(what: str, **lists: tuple[Any, ...]) -> None:
    lengths = [len(values) for values in lists.values()]
    if len(set(lengths)) > 1:
        names = f"{', '.join(list(lists)[:-1])} and {list(lists)[-1]}"
        raise ValueError(f"{names} must have one entry per {what}, got {', '.join(map(str, lengths))}.")


@dataclass(frozen=True)
class PythonNetwork:
    """A network by the user's code: a function of (params, input_shape, classes) that returns an `nn.Module`."""

    __pydantic_config__ = STRICT
    python: str
    """FILE.py:FUNCTION; the file is identified by its content."""
    digest: str
    """SHA-256 of the file."""
    params: dict[str, bool | int | float | str]
    family: Literal["python"] = "python"

    def summary(self) -> str:
        """Return a description in a few words."""
        shown = {k: f"{value:.3g}" if isinstance(value, float) else value for k, value in self.params.items()}
        return " ".join([self.python, *(f"{name}={value}" for name, value in shown.items())])


Network = MLP | CNN | PythonNetwork


def check_fits(network: Network, input_shape: tuple[int, ...]) -> None:
    """Check that a network can take inputs of a shape: a CNN needs images of sufficient size. Raises: ModelError."""
    if not isinstance(network, CNN):
        return
    if len(input_shape) != 3:
        raise ModelError(f"cnn: inputs must be images, got rows of {input_shape[0]} numbers. Use [mlp].")
    halvings, smallest = network.halvings, min(input_shape[1:])
    if smallest < 2**halvings:
        size = "x".join(map(str, input_shape[1:]))
        raise ModelError(
            f"cnn.depth: images must be at least 2**depth pixels wide and high, got depth={halvings} "
            f"(needs {2**halvings}) for {size} images. Lower depth to {smallest.bit_length() - 1}."
        )
