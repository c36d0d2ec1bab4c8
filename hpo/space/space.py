"""A search space: where to look. Ranges are data; the walk from them to a config is code.

The walk draws depth first, then each layer's width and dropout, then the optimizer and what belongs to it.
A parameter is named by its place in the document: `mlp.depth`, `mlp.0.width`, `optimizer.adam.lr`.
"""

from typing import Annotated, Any

from pydantic import Field, model_validator

from hpo import documents
from hpo.config import ClassWeight, DataSource, Metric, Network, Precision, Split, TrialConfig, check_fits
from hpo.documents import Section
from hpo.errors import DocumentError, ModelError
from hpo.ranges import Fixed, Flag, Number, Suggester, extremes, one_of, pick, within
from hpo.space.fields import Rate, Size
from hpo.space.networks import CNNSpace, MLPSpace
from hpo.space.training import AugmentSpace, OptimizerSpace, ScheduleSpace


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
    precision: one_of(Precision) = "auto"  # type: ignore[valid-type]
    accumulation: Size = 1
    """Parts that a batch is trained in, one after another: the same batch size in less memory."""
    data_fraction: Annotated[Number, within(0, 1, open_low=True)] = 1.0
    """Part of the training rows that is trained on."""
    image_size: Size | None = None
    """Width and height that images are scaled to."""
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
    augment: AugmentSpace = AugmentSpace()
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
            augment=self.augment.draw(suggester),
            data_fraction=pick(self.data_fraction, "data_fraction", suggester),
            image_size=pick(self.image_size, "image_size", suggester),
            accumulation=pick(self.accumulation, "accumulation", suggester),
            precision=pick(self.precision, "precision", suggester),
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
        if len(input_shape) != 3 and (self.augment != AugmentSpace() or self.image_size is not None):
            what = "image_size" if self.image_size is not None else "augment"
            raise DocumentError(f"{where}: {what}: inputs must be images, got a table. Remove it.")
        if self.cnn is None:
            return
        if self.image_size is not None:
            input_shape = (input_shape[0], *(min(extremes(self.image_size)),) * 2)
        try:
            check_fits(self.cnn.deepest, input_shape)
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
