"""Networks: their shape, not their weights."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from hpo.config.fields import STRICT, Count, Rate
from hpo.errors import ModelError

Activation = Literal["relu", "leaky_relu", "gelu", "tanh", "sigmoid"]
Norm = Literal["none", "batch", "layer"]
Pool = Literal["max", "avg"]
Head = Literal["average", "flatten"]


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron: each hidden layer is linear, norm, activation, dropout."""

    __pydantic_config__ = STRICT
    widths: tuple[Count, ...]
    dropout: tuple[Rate, ...]
    """One rate per hidden layer."""
    activation: Activation = "relu"
    norm: Norm = "none"
    family: Literal["mlp"] = "mlp"

    def __post_init__(self) -> None:
        _same_length("widths", self.widths, "dropout", self.dropout)


@dataclass(frozen=True)
class CNN:
    """A convolutional network: stages of convolutions, pooling by two and dropout, then a head."""

    __pydantic_config__ = STRICT
    channels: tuple[Count, ...]
    dropout: tuple[Rate, ...]
    """One rate per stage, for whole channels."""
    convs: Count = 1
    """Convolutions per stage, each followed by norm and activation."""
    kernel: Annotated[int, Field(ge=1)] = 3
    """Odd; padded so that a convolution keeps the image's size."""
    pool: Pool = "max"
    head: Head = "average"
    """How the last stage becomes features: the average over the image, or everything flattened."""
    head_width: Annotated[int, Field(ge=0)] = 0
    """Width of a dense layer before the output; 0 for none."""
    head_dropout: Rate = 0.0
    activation: Activation = "relu"
    norm: Norm = "none"
    family: Literal["cnn"] = "cnn"

    def __post_init__(self) -> None:
        _same_length("channels", self.channels, "dropout", self.dropout)
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {self.kernel}.")


def _same_length(a: str, values_a: tuple[Any, ...], b: str, values_b: tuple[Any, ...]) -> None:
    if len(values_a) != len(values_b):
        raise ValueError(f"{a} and {b} must have one entry per layer, got {len(values_a)} and {len(values_b)}.")


Network = MLP | CNN


def check_fits(network: Network, input_shape: tuple[int, ...]) -> None:
    """Refuse a CNN for tables or for images too small for its depth. Raises: ModelError."""
    if not isinstance(network, CNN):
        return
    if len(input_shape) != 3:
        raise ModelError(f"cnn: inputs must be images, got rows of {input_shape[0]} numbers. Use [mlp].")
    depth, smallest = len(network.channels), min(input_shape[1:])
    if smallest < 2**depth:
        size = "x".join(map(str, input_shape[1:]))
        raise ModelError(
            f"cnn.depth: images must be at least 2**depth pixels wide and high, got depth={depth} "
            f"(needs {2**depth}) for {size} images. Lower depth to {smallest.bit_length() - 1}."
        )
