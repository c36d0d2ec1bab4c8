"""Ranges of networks, and the walk through them: depth first, then each layer."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from hpo.config import CNN, MLP, Activation, Head, Init, Norm, Pool, PythonNetwork
from hpo.documents import Section
from hpo.ranges import (
    Choices,
    Flag,
    FloatRange,
    Integer,
    IntRange,
    Number,
    Param,
    Suggester,
    extremes,
    one_of,
    pick,
    values_of,
    within,
)
from hpo.space.fields import Rate, Size


class MLPSpace(Section):
    """Multilayer perceptrons."""

    depth: Size
    """Hidden layers."""
    width: Size
    """Per layer; one draw for all if it is `shared` or if there is a taper."""
    taper: Annotated[Number, within(0, open_low=True)] | None = None
    """Layer i is `width * taper**i` wide, rounded to the width's step."""
    dropout: Rate = 0.0
    """Per layer, unless `shared`."""
    activation: one_of(Activation) = "relu"  # type: ignore[valid-type]
    norm: one_of(Norm) = "none"  # type: ignore[valid-type]
    residual: Flag = False
    """Each hidden layer but the first adds its input, linearly projected where the width changes."""
    init: one_of(Init) = "default"  # type: ignore[valid-type]

    def draw(self, suggester: Suggester) -> MLP:
        """Draw depth, the layers, and what all layers share."""
        depth = pick(self.depth, "mlp.depth", suggester)
        return MLP(
            widths=_widths("mlp", "width", self.width, "taper", self.taper, depth, suggester),
            dropout=_per_layer("mlp", "dropout", self.dropout, depth, suggester),
            **_single(self, "mlp", ("activation", "norm", "residual", "init"), suggester),
        )


class CNNSpace(Section):
    """Convolutional networks; `depth` counts stages, each of which halves the image."""

    depth: Size
    channels: Size
    """Per stage; one draw for all if it is `shared` or if there is a growth."""
    growth: Annotated[Number, within(0, open_low=True)] | None = None
    """Stage i has `channels * growth**i` channels, rounded to the channels' step."""
    convs: Size = 1
    """Convolutions; per stage, unless `shared`."""
    pool: one_of(Pool) = "max"  # type: ignore[valid-type]
    """How the image is halved, or "none"; per stage, unless `shared`."""
    dropout: Rate = 0.0
    """For whole channels; per stage, unless `shared`."""
    kernel: Size = 3
    head: one_of(Head) = "average"  # type: ignore[valid-type]
    head_size: Size = 1
    """Width and height of what adaptive average pooling leaves; asked for with the head `average`."""
    head_width: Annotated[Integer, within(0)] = 0
    head_dropout: Rate = 0.0
    activation: one_of(Activation) = "relu"  # type: ignore[valid-type]
    norm: one_of(Norm) = "none"  # type: ignore[valid-type]
    residual: Flag = False
    """Each stage but the first adds its input before pooling, projected where the channels change."""
    init: one_of(Init) = "default"  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _odd_kernel(self) -> "CNNSpace":
        kernel = self.kernel
        odd = [k % 2 for k in extremes(kernel)] + [1 - kernel.step % 2 if isinstance(kernel, IntRange) else 1]
        if not all(odd):
            raise ValueError(f"kernel must be odd, got {kernel}. Use choices = [3, 5], or a range with step = 2.")
        return self

    def draw(self, suggester: Suggester) -> CNN:
        """Draw the number of stages, the stages, and the head."""
        depth = pick(self.depth, "cnn.depth", suggester)
        channels = _widths("cnn", "channels", self.channels, "growth", self.growth, depth, suggester)
        per_stage: dict[str, Any] = {
            name: _per_layer("cnn", name, getattr(self, name), depth, suggester)
            for name in ("dropout", "convs", "pool")
        }
        single = _single(self, "cnn", ("kernel", "head"), suggester)
        if single["head"] == "average":
            single |= _single(self, "cnn", ("head_size",), suggester)
        rest = ("head_width", "head_dropout", "activation", "norm", "residual", "init")
        return CNN(channels=channels, **per_stage, **single, **_single(self, "cnn", rest, suggester))

    @property
    def deepest(self) -> CNN:
        """A network that halves the image as often as any that can be drawn."""
        depth = max(extremes(self.depth))
        halves = any(pool != "none" for pool in values_of(self.pool))
        return CNN((1,) * depth, (0.0,) * depth, pool=("max" if halves else "none",) * depth)


class ModelSpace(Section):
    """Networks of your own: a function of (params, input_shape, classes) that returns an `nn.Module`."""

    python: str
    """FILE.py:FUNCTION; the path counts from this document's folder."""
    digest: str = ""
    """SHA-256 of the file; noted when the document is read."""
    params: dict[str, Param] = Field(default_factory=dict)
    """What the function is given: constants, ranges, choices."""

    def draw(self, suggester: Suggester) -> PythonNetwork:
        """Draw each parameter, in the document's order."""
        drawn = {name: pick(field, f"model.{name}", suggester) for name, field in self.params.items()}
        return PythonNetwork(self.python, self.digest, drawn)


def _single(space: Section, family: str, names: tuple[str, ...], suggester: Suggester) -> dict[str, Any]:
    """Draw fields that all layers share."""
    return {name: pick(getattr(space, name), f"{family}.{name}", suggester) for name in names}


def _widths(
    family: str, name: str, width: Any, ratio_name: str, ratio: Any, depth: int, suggester: Suggester
) -> tuple[int, ...]:
    """Draw each layer's width, or the first one's and the ratio from one to the next."""
    if ratio is None:
        return _per_layer(family, name, width, depth, suggester)
    first = pick(width, f"{family}.{name}", suggester)
    factor = pick(ratio, f"{family}.{ratio_name}", suggester)
    return tuple(stretched(width, first, factor, i) for i in range(depth))


def _per_layer(family: str, name: str, field: Any, depth: int, suggester: Suggester) -> tuple[Any, ...]:
    """Draw a field for each layer; what is shared is drawn once, for all."""
    if isinstance(field, IntRange | FloatRange | Choices) and field.shared:
        return (pick(field, f"{family}.{name}", suggester),) * depth
    return tuple(pick(field, f"{family}.{i}.{name}", suggester) for i in range(depth))


def stretched(width: Any, first: int, ratio: float, layer: int) -> int:
    """Return `first * ratio**layer`, rounded to the step of the width's range and at least that."""
    unit = width.step if isinstance(width, IntRange) else 1
    return int(max(unit, round(first * ratio**layer / unit) * unit))
