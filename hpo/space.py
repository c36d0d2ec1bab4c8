"""A search space: where to look. Ranges are data; the walk from them to a config is code.

The walk draws depth first, then each layer's width and dropout, then the optimizer and what belongs to it.
A parameter is named by its place in the document: `mlp.depth`, `mlp.0.width`, `optimizer.adam.lr`.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hpo import documents
from hpo.config import (
    CNN,
    MLP,
    OPTIMIZERS,
    SCHEDULES,
    Activation,
    ClassWeight,
    DataSource,
    Head,
    Metric,
    Network,
    Norm,
    Optimizer,
    Pool,
    Precision,
    Schedule,
    Split,
    TrialConfig,
    check_fits,
    own_fields,
)
from hpo.constraints import Constraints
from hpo.documents import Section
from hpo.errors import DocumentError, ModelError
from hpo.ranges import (
    Choices,
    Fixed,
    Flag,
    FloatRange,
    Integer,
    IntRange,
    Number,
    Suggester,
    extremes,
    one_of,
    pick,
    values_of,
    within,
)

OptimizerName = Literal["sgd", "sgd_momentum", "adam", "adamw", "rmsprop"]
ScheduleName = Literal["none", "cosine", "one_cycle", "step", "exponential", "warmup_cosine", "plateau"]

Rate = Annotated[Number, within(0, 1, open_high=True)]
Size = Annotated[Integer, within(1)]
Share = Annotated[Number, within(0, 1, open_low=True, open_high=True)]


class MLPSpace(Section):
    """Multilayer perceptrons."""

    depth: Size
    """Hidden layers."""
    width: Size
    """Per layer; one draw for all if it is `shared` or if there is a taper."""
    taper: Annotated[Number, within(0, open_low=True)] | None = None
    """Layer i is `width * taper**i` wide, rounded to the width's step."""
    dropout: Rate = 0.0
    activation: one_of(Activation) = "relu"  # type: ignore[valid-type]
    norm: one_of(Norm) = "none"  # type: ignore[valid-type]

    def draw(self, suggester: Suggester) -> MLP:
        """Draw depth, the layers, activation and norm."""
        depth = pick(self.depth, "mlp.depth", suggester)
        widths, dropout = _layers("mlp", "width", self.width, "taper", self.taper, self.dropout, depth, suggester)
        return MLP(
            widths=widths,
            dropout=dropout,
            activation=pick(self.activation, "mlp.activation", suggester),
            norm=pick(self.norm, "mlp.norm", suggester),
        )


class CNNSpace(Section):
    """Convolutional networks; `depth` counts stages, each of which halves the image."""

    depth: Size
    channels: Size
    """Per stage; one draw for all if it is `shared` or if there is a growth."""
    growth: Annotated[Number, within(0, open_low=True)] | None = None
    """Stage i has `channels * growth**i` channels, rounded to the channels' step."""
    convs: Size = 1
    kernel: Size = 3
    pool: one_of(Pool) = "max"  # type: ignore[valid-type]
    dropout: Rate = 0.0
    head: one_of(Head) = "average"  # type: ignore[valid-type]
    head_width: Annotated[Integer, within(0)] = 0
    head_dropout: Rate = 0.0
    activation: one_of(Activation) = "relu"  # type: ignore[valid-type]
    norm: one_of(Norm) = "none"  # type: ignore[valid-type]

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
        channels, dropout = _layers(
            "cnn", "channels", self.channels, "growth", self.growth, self.dropout, depth, suggester
        )
        single = ("convs", "kernel", "pool", "head", "head_width", "head_dropout", "activation", "norm")
        drawn = {name: pick(getattr(self, name), f"cnn.{name}", suggester) for name in single}
        return CNN(channels=channels, dropout=dropout, **drawn)


def _layers(
    family: str,
    width_name: str,
    width: Any,
    ratio_name: str,
    ratio: Any,
    dropout: Any,
    depth: int,
    suggester: Suggester,
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Draw width and dropout layer by layer; what is shared is asked for under the same name each time."""
    widths: list[int] = []
    rates: list[float] = []
    for i in range(depth):
        if ratio is not None:
            first = pick(width, f"{family}.{width_name}", suggester)
            factor = pick(ratio, f"{family}.{ratio_name}", suggester)
            widths.append(stretched(width, first, factor, i))
        else:
            widths.append(pick(width, _layer_name(family, i, width_name, width), suggester))
        rates.append(pick(dropout, _layer_name(family, i, "dropout", dropout), suggester))
    return tuple(widths), tuple(rates)


def stretched(width: Any, first: int, ratio: float, layer: int) -> int:
    """Return `first * ratio**layer`, rounded to the step of the width's range and at least that."""
    unit = width.step if isinstance(width, IntRange) else 1
    return int(max(unit, round(first * ratio**layer / unit) * unit))


def _layer_name(family: str, layer: int, name: str, field: Any) -> str:
    shared = isinstance(field, IntRange | FloatRange | Choices) and field.shared
    return f"{family}.{name}" if shared else f"{family}.{layer}.{name}"


class Hyperparameters(Section):
    """What an optimizer may have; each is asked for only by the optimizers that know it."""

    lr: Annotated[Number, within(0, open_low=True)] | None = None
    weight_decay: Annotated[Number, within(0)] | None = None
    momentum: Rate | None = None
    nesterov: Flag | None = None
    beta1: Rate | None = None
    beta2: Rate | None = None
    alpha: Rate | None = None
    eps: Annotated[Number, within(0, open_low=True)] | None = None


class OptimizerSpace(Hyperparameters):
    """Optimizers by name; a table of an optimizer's own, as `[optimizer.sgd]`, goes before the common fields."""

    name: one_of(OptimizerName)  # type: ignore[valid-type]
    sgd: Hyperparameters = Hyperparameters()
    sgd_momentum: Hyperparameters = Hyperparameters()
    adam: Hyperparameters = Hyperparameters()
    adamw: Hyperparameters = Hyperparameters()
    rmsprop: Hyperparameters = Hyperparameters()

    @model_validator(mode="after")
    def _every_optimizer_has_a_rate(self) -> "OptimizerSpace":
        for name in values_of(self.name):
            if self.lr is None and getattr(self, name).lr is None:
                raise ValueError(f"lr is required for {name}. Add it here or in [optimizer.{name}].")
        return self

    def draw(self, suggester: Suggester) -> Optimizer:
        """Draw the optimizer, then its own hyperparameters; what the space leaves out stays at its default."""
        name = pick(self.name, "optimizer.name", suggester)
        own = getattr(self, name)
        drawn = {}
        for key in own_fields(OPTIMIZERS[name]):
            if getattr(own, key) is not None:
                drawn[key] = pick(getattr(own, key), f"optimizer.{name}.{key}", suggester)
            elif getattr(self, key) is not None:
                drawn[key] = pick(getattr(self, key), f"optimizer.{key}", suggester)
        return OPTIMIZERS[name](**drawn)


class ScheduleSpace(Section):
    """Learning-rate schedules by name, with the fields that some of them have."""

    name: one_of(ScheduleName) = "none"  # type: ignore[valid-type]
    floor: Rate | None = None
    warmup: Share | None = None
    final: Share | None = None
    gamma: Share | None = None
    parts: Annotated[Integer, within(2)] | None = None
    patience: Size | None = None

    def draw(self, suggester: Suggester) -> Schedule:
        """Draw the schedule, then its own fields."""
        name = pick(self.name, "schedule.name", suggester)
        fields = {key: getattr(self, key) for key in own_fields(SCHEDULES[name])}
        drawn = {k: pick(f, f"schedule.{k}", suggester) for k, f in fields.items() if f is not None}
        return SCHEDULES[name](**drawn)


class Baseline(Section):
    """A configuration to try first: a value for each parameter that the walk asks for on its way."""

    name: str
    params: dict[str, Any]

    def values(self) -> dict[str, Any]:
        """Return the parameters by full name; a list under a per-layer name counts the layers from 0."""
        return _flatten(self.params, "")


def _flatten(table: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            flat |= {f"{prefix}{i}.{key}": v for i, v in enumerate(value)}
        else:
            flat[prefix + key] = value
    return flat


class SearchSpace(Section):
    """A data set, one family of networks, and the ranges of everything that is searched."""

    title: str = ""
    data: DataSource | None = None
    """A name of `hpo data list`, or data of your own; without it `hpo run` wants --data."""
    split: Split = Field(default_factory=Split)
    epochs: Size
    batch_size: Size
    precision: Precision = "auto"
    metric: Metric = "accuracy"
    """What a configuration is judged by on the validation rows; a recipe's objective goes before."""
    class_weight: one_of(ClassWeight) = "none"  # type: ignore[valid-type]
    """`balanced` weighs rare classes up in the loss."""
    label_smoothing: Rate = 0.0
    """Share of the target that is spread over all classes."""
    clip_norm: Annotated[Number, within(0, open_low=True)] | None = None
    """The gradient is scaled down to this norm where it is larger."""
    patience: Size | None = None
    """Training ends when the metric has not improved for so many epochs."""
    best_weights: Flag = False
    """At the end the network takes the weights of its best epoch; else it keeps those of the last."""
    mlp: MLPSpace | None = None
    cnn: CNNSpace | None = None
    optimizer: OptimizerSpace
    schedule: ScheduleSpace = ScheduleSpace()
    constraints: Constraints = Constraints()
    baselines: list[Baseline] = Field(default_factory=list)

    @model_validator(mode="after")
    def _consistent(self) -> "SearchSpace":
        if (self.mlp is None) == (self.cnn is None):
            raise ValueError("exactly one of [mlp] and [cnn] is required.")
        for i, baseline in enumerate(self.baselines):
            fixed = Fixed(baseline.values())
            try:
                self.draw(fixed, seed=0)
            except ValueError as error:
                raise ValueError(f"baselines.{i}.params.{error}") from None
            for name in fixed.values.keys() - fixed.used:
                raise ValueError(f"baselines.{i}.params.{name}: is not asked for on this path. Remove it.")
        return self

    def draw(self, suggester: Suggester, seed: int) -> TrialConfig:
        """Walk the space: every choice is asked of the suggester, and the answers make a complete config."""
        network: Network
        if self.mlp is not None:
            network = self.mlp.draw(suggester)
        else:
            assert self.cnn is not None
            network = self.cnn.draw(suggester)
        return TrialConfig(
            data=self.data if self.data is not None else "",
            split=self.split,
            model=network,
            optimizer=self.optimizer.draw(suggester),
            schedule=self.schedule.draw(suggester),
            batch_size=pick(self.batch_size, "batch_size", suggester),
            epochs=pick(self.epochs, "epochs", suggester),
            label_smoothing=pick(self.label_smoothing, "label_smoothing", suggester),
            clip_norm=pick(self.clip_norm, "clip_norm", suggester),
            patience=pick(self.patience, "patience", suggester),
            best_weights=pick(self.best_weights, "best_weights", suggester),
            precision=self.precision,
            metric=self.metric,
            class_weight=pick(self.class_weight, "class_weight", suggester),
            seed=seed,
        )

    @property
    def max_epochs(self) -> int:
        """The longest training that the space can draw."""
        longest: int = max(extremes(self.epochs))
        return longest

    def check_inputs(self, input_shape: tuple[int, ...], where: str) -> None:
        """Refuse inputs that the deepest network of the space cannot take. Raises: DocumentError."""
        if self.cnn is None:
            return
        depth = max(extremes(self.cnn.depth))
        try:
            check_fits(CNN((1,) * depth, (0.0,) * depth), input_shape)
        except ModelError as error:
            raise DocumentError(f"{where}: {error}") from None

    def identity(self) -> dict[str, Any]:
        """Return what makes two spaces the same search: everything but the title."""
        content = documents.dump(self)
        del content["title"]
        return content


def load(name: str) -> SearchSpace:
    """Return the space of this name or path. Raises: UsageError, DocumentError."""
    document = documents.find("space", name)
    return documents.check(SearchSpace, document.content, document.where)
