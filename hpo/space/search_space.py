"""A search space: where to look. Ranges are data; the walk from them to a config is code.

The walk draws depth first, then each layer's width and dropout, then the optimizer and what belongs to it.
A parameter is named by its place in the document: `mlp.depth`, `mlp.0.width`, `optimizer.adam.lr`.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from hpo import documents, user_code
from hpo.config import ClassWeight, DataSource, Metric, Network, Precision, Split, TrialConfig, check_fits
from hpo.constraints import Constraints
from hpo.documents import Section
from hpo.errors import DocumentError, HpoError, ModelError
from hpo.ranges import FixedSuggester, Flag, Number, Suggester, extremes, one_of, pick, within
from hpo.space.fields import Rate, Size
from hpo.space.networks import CNNSpace, MLPSpace, ModelSpace
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
    batch_size: Size | None = None
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
    model: ModelSpace | None = None
    python: str | None = None
    """FILE.py:FUNCTION of your own in place of all that follows: it is given a suggester and returns a TrialConfig,
    whose data, split, epochs, metric, sizes and seed are then set by this document."""
    digest: str = ""
    """SHA-256 of that file; noted when the document is read."""
    optimizer: OptimizerSpace | None = None
    schedule: ScheduleSpace = ScheduleSpace()
    augment: AugmentSpace = AugmentSpace()
    constraints: Constraints = Constraints()
    baselines: list[Baseline] = Field(default_factory=list)

    @model_validator(mode="after")
    def _consistent(self) -> "SearchSpace":
        families = self._families
        if len(families) != 1:
            got = " and ".join(families) or "none"
            raise ValueError(f"exactly one of [mlp], [cnn], [model] and python is required, got {got}.")
        if self.python is not None:
            return self  # its function is tried when a study is made of it: reading a document runs no code
        for name in ("batch_size", "optimizer"):
            if getattr(self, name) is None:
                raise ValueError(f"{name}: is required. Add it.")
        for i, baseline in enumerate(self.baselines):
            fixed = FixedSuggester(baseline.values())
            try:
                self.draw(fixed, seed=0)
            except ValueError as error:
                raise ValueError(f"baselines.{i}.params.{error}") from None
            for name in fixed.values.keys() - fixed.used:
                raise ValueError(f"baselines.{i}.params.{name}: is not asked for on this path. Remove it.")
        return self

    @property
    def _families(self) -> list[str]:
        return [name for name in ("mlp", "cnn", "model", "python") if getattr(self, name) is not None]

    @property
    def family(self) -> str:
        """Which of its sections says what the networks are: mlp, cnn, model or python."""
        return self._families[0]

    def draw(self, suggester: Suggester, seed: int) -> TrialConfig:
        """Walk the space: every choice is asked of the suggester, and the answers make a complete config.

        Raises: ModelError if a function of the user's own fails, UsageError if it may not run.
        """
        if self.python is not None:
            return self._drawn_by_python(self.python, suggester, seed)
        family = self.mlp or self.cnn or self.model
        assert family is not None and self.optimizer is not None
        network: Network = family.draw(suggester)
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

    def check_code(self) -> None:
        """Refuse to go on if this space needs code of the user's own that they have not named. Raises: UsageError."""
        for section in (self, self.model):
            if section is not None and section.python is not None:
                user_code.path_of(section.python, section.digest)

    def _drawn_by_python(self, reference: str, suggester: Suggester, seed: int) -> TrialConfig:
        try:
            config = user_code.load_function(reference, self.digest)(suggester)
        except HpoError:
            raise
        except Exception as error:
            raise ModelError(f"{reference}: failed with {user_code.one_line(error)}. Mend it.") from error
        if not isinstance(config, TrialConfig):
            raise ModelError(f"{reference}: must return a TrialConfig, got {type(config).__name__}. Mend it.")
        own = {name: pick(getattr(self, name), name, suggester) for name in ("epochs", "data_fraction", "image_size")}
        source = self.data if self.data is not None else ""
        return dataclasses.replace(config, data=source, split=self.split, metric=self.metric, seed=seed, **own)

    @property
    def max_epochs(self) -> int:
        """The longest training that the space can draw."""
        longest: int = max(extremes(self.epochs))
        return longest

    def check_inputs(self, input_shape: tuple[int, ...], where: str) -> None:
        """Refuse inputs that the deepest network of the space cannot take. Raises: DocumentError."""
        size = None if self.image_size is None else min(extremes(self.image_size))
        shape = input_shape if size is None or len(input_shape) != 3 else (input_shape[0], size, size)
        try:
            if self.cnn is not None:
                check_fits(self.cnn.deepest, shape)
        except ModelError as error:
            raise DocumentError(f"{where}: {error}") from None
        if len(input_shape) != 3 and (self.augment != AugmentSpace() or size is not None):
            what = "augment" if size is None else "image_size"
            raise DocumentError(f"{where}: {what}: inputs must be images, got a table. Remove it.")

    def identity(self) -> dict[str, Any]:
        """Return what makes two spaces the same search: everything but the title."""
        content = documents.dump(self)
        del content["title"]
        return content


def load_space(name: str, *, trust_code: bool = False) -> SearchSpace:
    """Return the space of this name or path.

    With `trust_code`, the Python files that the document names may run in this session and in its workers: for
    documents that the user has named. Raises: UsageError, DocumentError.
    """
    document = documents.find("space", name)
    return read_space(document.content, Path(document.where).parent, document.where, trust_code=trust_code)


def read_space(content: dict[str, Any], folder: Path, where: str, *, trust_code: bool = False) -> SearchSpace:
    """Return the space of a document's content; `where` names it in errors, Python files lie beside it in `folder`.

    `trust_code` is as in `load_space`. Raises: DocumentError.
    """
    paths = []
    if isinstance(content.get("python"), str):
        code, path = user_code.resolve(content["python"], folder, where)
        content, paths = content | code, [path]
    model = content.get("model")
    if isinstance(model, dict) and isinstance(model.get("python"), str):
        code, path = user_code.resolve(model["python"], folder, f"{where}: model")
        content, paths = content | {"model": model | code}, [*paths, path]
    space = documents.check(SearchSpace, content, where)
    if trust_code:
        for path in paths:
            user_code.trust(path)
    return space
