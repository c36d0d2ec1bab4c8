"""Sections of a space for networks, and how they are drawn: depth first, then the layers, then everything else."""

from typing import Annotated, Any, NamedTuple, TypeVar

import pydantic
from pydantic import model_validator

from hpo.config import CNN, MLP, Activation, Head, Init, Norm, Pool, PythonNetwork
from hpo.documents import Section
from hpo.ranges import (
    Field,
    Flag,
    FloatRange,
    Integer,
    IntRange,
    Number,
    Param,
    extremes,
    is_shared,
    pick,
    values_of,
    within,
)
from hpo.space.fields import Rate, Size
from hpo.suggesters import Suggester

T = TypeVar("T")

TOO_WIDE = 2**31
"""One more than the most units or channels that a config accepts (`hpo.config.fields.Count`)."""


class Hyperparameter(NamedTuple):
    """A field of a network's section, which becomes the field of the same name of its config."""

    name: str
    per_layer: bool = False
    """Whether it has one value per layer: drawn as `FAMILY.LAYER.NAME`, or once as `FAMILY.NAME` if it is shared."""
    only_if: tuple[str, Any] | None = None
    """Name and value of an earlier field with which it is drawn; with other values, the config has its default."""


class Family(NamedTuple):
    """How the section of a family of networks is drawn, and how its draws follow from a config."""

    name: str
    """Name of the section, which starts the name of each parameter."""
    width: str
    """Field of the section for the width of a layer."""
    widths: str
    """Field of the config for the widths of all layers."""
    ratio: str
    """Field of the section for the ratio of the widths of a layer and the one before it."""
    hyperparameters: tuple[Hyperparameter, ...]
    """All other fields, in the order in which they are drawn; a new one needs its entry here."""

    def draw(self, space: "MLPSpace | CNNSpace", suggester: Suggester) -> dict[str, Any]:
        """Return the fields of a config, drawn from a section."""
        depth = pick(space.depth, f"{self.name}.depth", suggester)
        drawn: dict[str, Any] = {self.widths: self._draw_widths(space, depth, suggester)}
        for name, per_layer, only_if in self.hyperparameters:
            field = getattr(space, name)
            if per_layer:
                drawn[name] = _per_layer(field, self.name, name, depth, suggester)
            elif only_if is None or drawn[only_if[0]] == only_if[1]:
                drawn[name] = pick(field, f"{self.name}.{name}", suggester)
        return drawn

    def _draw_widths(self, space: "MLPSpace | CNNSpace", depth: int, suggester: Suggester) -> tuple[int, ...]:
        """Draw each layer's width; with a ratio, the first layer's width and the ratio."""
        width, ratio = getattr(space, self.width), getattr(space, self.ratio)
        if ratio is None:
            return _per_layer(width, self.name, self.width, depth, suggester)
        first = pick(width, f"{self.name}.{self.width}", suggester)
        factor = pick(ratio, f"{self.name}.{self.ratio}", suggester)
        return tuple(scaled_width(width, first, factor, layer) for layer in range(depth))

    def draws_of(self, space: "MLPSpace | CNNSpace", network: MLP | CNN) -> dict[str, Any]:
        """Return the value of every parameter with which the section could give a network.

        Per-layer fields are returned both by layer and as shared ones. The values may be outside the ranges.
        """
        widths = getattr(network, self.widths)
        draws: dict[str, Any] = {f"{self.name}.depth": len(widths)}
        layered = {self.width: widths} | {h.name: getattr(network, h.name) for h in self.hyperparameters if h.per_layer}
        for name, values in layered.items():
            draws |= {f"{self.name}.{layer}.{name}": value for layer, value in enumerate(values)}
            draws[f"{self.name}.{name}"] = values[0]
        draws |= {f"{self.name}.{h.name}": getattr(network, h.name) for h in self.hyperparameters if not h.per_layer}
        ratio = getattr(space, self.ratio)
        if ratio is not None:
            draws[f"{self.name}.{self.ratio}"] = _ratio_of(getattr(space, self.width), ratio, widths)
        return draws


_MLP = Family(
    "mlp",
    "width",
    "widths",
    "taper",
    (
        Hyperparameter("dropout", per_layer=True),
        Hyperparameter("activation"),
        Hyperparameter("norm"),
        Hyperparameter("residual"),
        Hyperparameter("init"),
    ),
)
_CNN = Family(
    "cnn",
    "channels",
    "channels",
    "growth",
    (
        Hyperparameter("dropout", per_layer=True),
        Hyperparameter("convs", per_layer=True),
        Hyperparameter("pool", per_layer=True),
        Hyperparameter("kernel"),
        Hyperparameter("head"),
        Hyperparameter("head_size", only_if=("head", "average")),
        Hyperparameter("head_width"),
        Hyperparameter("head_dropout"),
        Hyperparameter("activation"),
        Hyperparameter("norm"),
        Hyperparameter("residual"),
        Hyperparameter("init"),
    ),
)


class MLPSpace(Section):
    """Multilayer perceptrons."""

    depth: Size
    """Hidden layers."""
    width: Size
    """Per layer; one draw for all if it is `shared` or if there is a taper."""
    taper: Annotated[Number, within(0, 100, open_low=True)] | None = None
    """Layer i is `width * taper**i` wide, rounded to the width's step."""
    dropout: Rate = 0.0
    """Per layer, unless `shared`."""
    activation: Field[Activation] = "relu"
    norm: Field[Norm] = "none"
    residual: Flag = False
    """Each hidden layer but the first adds its input, linearly projected where the width changes."""
    init: Field[Init] = "default"

    def draw(self, suggester: Suggester) -> MLP:
        """Draw a network."""
        return MLP(**_MLP.draw(self, suggester))

    def draws_of(self, network: MLP) -> dict[str, Any]:
        """Return the value of every parameter with which this section could give a network."""
        return _MLP.draws_of(self, network)


class CNNSpace(Section):
    """Convolutional networks; `depth` counts stages, each of which halves the image."""

    depth: Size
    channels: Size
    """Per stage; one draw for all if it is `shared` or if there is a growth."""
    growth: Annotated[Number, within(0, 100, open_low=True)] | None = None
    """Stage i has `channels * growth**i` channels, rounded to the channels' step."""
    convs: Size = 1
    """Convolutions; per stage, unless `shared`."""
    pool: Field[Pool] = "max"
    """How the image is halved, or "none"; per stage, unless `shared`."""
    dropout: Rate = 0.0
    """For whole channels; per stage, unless `shared`."""
    kernel: Size = 3
    head: Field[Head] = "average"
    head_size: Size = 1
    """Width and height of the output of adaptive average pooling; only drawn with the head `average`."""
    head_width: Annotated[Integer, within(0)] = 0
    head_dropout: Rate = 0.0
    activation: Field[Activation] = "relu"
    norm: Field[Norm] = "none"
    residual: Flag = False
    """Each stage but the first adds its input before pooling, projected where the channels change."""
    init: Field[Init] = "default"

    @model_validator(mode="after")
    def _odd_kernel(self) -> "CNNSpace":
        kernel = self.kernel
        odd = [k % 2 for k in extremes(kernel)] + [1 - kernel.step % 2 if isinstance(kernel, IntRange) else 1]
        if not all(odd):
            raise ValueError(f"kernel must be odd, got {kernel}. Use choices = [3, 5], or a range with step = 2.")
        return self

    def draw(self, suggester: Suggester) -> CNN:
        """Draw a network."""
        return CNN(**_CNN.draw(self, suggester))

    def draws_of(self, network: CNN) -> dict[str, Any]:
        """Return the value of every parameter with which this section could give a network."""
        return _CNN.draws_of(self, network)

    @property
    def deepest(self) -> CNN:
        """A network that halves the image as often as any that can be drawn."""
        depth = max(extremes(self.depth))
        halves = any(pool != "none" for pool in values_of(self.pool))
        return CNN((1,) * depth, (0.0,) * depth, pool=("max" if halves else "none",) * depth)


class ModelSpace(Section):
    """Networks of your own: a function of (params, input_shape, classes) that returns an `nn.Module`."""

    python: str
    """FILE.py:FUNCTION; the path is relative to this document's folder."""
    digest: str = ""
    """SHA-256 of the file; set when the document is read."""
    params: dict[str, Param] = pydantic.Field(default_factory=dict)
    """Parameters of the function: constants, ranges, choices."""

    def draw(self, suggester: Suggester) -> PythonNetwork:
        """Draw each parameter, in the order of the document."""
        fields: dict[str, Any] = self.params
        drawn = {name: pick(field, f"model.{name}", suggester) for name, field in fields.items()}
        return PythonNetwork(self.python, self.digest, drawn)

    def draws_of(self, network: PythonNetwork) -> dict[str, Any]:
        """Return the value of every parameter with which this section could give a network."""
        return {f"model.{name}": value for name, value in network.params.items()}


def _per_layer(field: Field[T], family: str, name: str, depth: int, suggester: Suggester) -> tuple[T, ...]:
    """Draw a field for each layer, or once for all if it is shared."""
    if is_shared(field):
        return (pick(field, f"{family}.{name}", suggester),) * depth
    return tuple(pick(field, f"{family}.{layer}.{name}", suggester) for layer in range(depth))


def scaled_width(width: Field[int], first: int, ratio: float, layer: int) -> int:
    """Return `first * ratio**layer`, rounded to a multiple of the step of the width's range, at least one step.

    What is larger than any network can be is `TOO_WIDE`, which its config refuses.
    """
    unit = width.step if isinstance(width, IntRange) else 1
    try:
        return min(max(unit, round(first * ratio**layer / unit) * unit), TOO_WIDE)
    except OverflowError:
        return TOO_WIDE


def _ratio_of(width: Field[int], ratio: Field[float], widths: tuple[int, ...]) -> float:
    """Return a ratio that gives these widths, if there is one among the values of `ratio`."""
    if isinstance(ratio, FloatRange):
        options = [widths[1] / widths[0] if len(widths) > 1 else ratio.low]
    else:
        options = values_of(ratio)
    for option in options:
        if all(scaled_width(width, widths[0], option, layer) == w for layer, w in enumerate(widths)):
            return option
    return options[0]
