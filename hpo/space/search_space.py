"""A search space: which configurations a study searches. The ranges are data; the walk from them to a config is code.

The walk draws the network (depth first, then each layer), the optimizer with its hyperparameters, the schedule, and
then the other fields. A parameter is named by its place in the document: `mlp.depth`, `mlp.0.width`,
`optimizer.adam.lr`.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from hpo import documents, user_code
from hpo.config import (
    CNN,
    MLP,
    ClassWeight,
    DataSource,
    Metric,
    Network,
    Precision,
    PythonNetwork,
    Split,
    TrialConfig,
    check_fits,
)
from hpo.constraints import Constraints
from hpo.documents import Section
from hpo.errors import DocumentError, HpoError, ModelError
from hpo.ranges import Field, Flag, Number, extremes, pick, within
from hpo.space.fields import Rate, Size
from hpo.space.networks import CNNSpace, MLPSpace, ModelSpace
from hpo.space.training import AugmentSpace, AverageSpace, OptimizerSpace, ScheduleSpace
from hpo.suggesters import FixedSuggester, Suggester

HYPERPARAMETERS = (
    "optimizer",
    "schedule",
    "batch_size",
    "epochs",
    "label_smoothing",
    "clip_norm",
    "patience",
    "best_weights",
    "augment",
    "data_fraction",
    "image_size",
    "accumulation",
    "precision",
    "class_weight",
    "average",
)
"""Fields of a space, in the order in which they are drawn after the network; each becomes the field of the same name of
the config. The fields of optimizer, schedule, augment, average and the networks are listed with their sections. Order
and names must stay: stored trials are replayed by them, and a sampler's draws depend on the order."""


Drawn = OptimizerSpace | ScheduleSpace | AugmentSpace | AverageSpace


class Baseline(Section):
    """A configuration to try first: a value for each parameter that is drawn for it."""

    name: str
    params: dict[str, Any]

    def values(self) -> dict[str, Any]:
        """Return the values by full name of the parameter; a list under a per-layer name has one value per layer."""
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
    """A data set, one family of networks, and the ranges of all hyperparameters that are searched."""

    title: str = ""
    data: DataSource | None = None
    """A name of `hpo data list`, or data of your own; without it, `hpo run` needs --data."""
    split: Split = pydantic.Field(default_factory=Split)
    epochs: Size
    batch_size: Size | None = None
    precision: Field[Precision] = "auto"
    accumulation: Size = 1
    """Number of parts in which the gradient of a batch is computed, to use less memory."""
    data_fraction: Annotated[Number, within(0, 1, open_low=True)] = 1.0
    """Share of the training rows that is used."""
    image_size: Size | None = None
    """Width and height that images are scaled to."""
    metric: Metric = "accuracy"
    """Metric on the validation rows that is maximized; a recipe's objective overrides it."""
    class_weight: Field[ClassWeight] = "none"
    """`balanced` gives rare classes larger weights in the loss."""
    label_smoothing: Rate = 0.0
    """Share of the target that is distributed over all classes."""
    clip_norm: Annotated[Number, within(0, open_low=True)] | None = None
    """The gradient is scaled down to this norm where it is larger."""
    patience: Size | None = None
    """Training ends when the metric has not improved for this number of epochs."""
    best_weights: Flag = False
    """Whether training ends with the weights of the best epoch instead of those of the last."""
    mlp: MLPSpace | None = None
    cnn: CNNSpace | None = None
    model: ModelSpace | None = None
    python: str | None = None
    """FILE.py:FUNCTION of your own, instead of all fields below: it takes a suggester and returns a TrialConfig, whose
    data, split, epochs, metric, sizes and seed are then set by this document."""
    digest: str = ""
    """SHA-256 of that file; set when the document is read."""
    optimizer: OptimizerSpace | None = None
    schedule: ScheduleSpace = ScheduleSpace()
    augment: AugmentSpace = AugmentSpace()
    average: AverageSpace = AverageSpace()
    constraints: Constraints = Constraints()
    baselines: list[Baseline] = pydantic.Field(default_factory=list)

    @model_validator(mode="after")
    def _consistent(self) -> "SearchSpace":
        families = self._families
        if len(families) != 1:
            got = " and ".join(families) or "none"
            raise ValueError(f"exactly one of [mlp], [cnn], [model] and python is required, got {got}.")
        if self.python is not None:
            return self  # its function is tried when a study is created: reading a document runs no code
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
                raise ValueError(f"baselines.{i}.params.{name}: is not drawn for this baseline. Remove it.")
        return self

    @model_serializer(mode="wrap")
    def _as_before_averages(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `average` where nothing is averaged: such a space, and its digest, are as before hpo knew it."""
        content: dict[str, Any] = handler(self)
        if self.average == AverageSpace():
            content.pop("average", None)
        return content

    @property
    def _families(self) -> list[str]:
        return [name for name in ("mlp", "cnn", "model", "python") if getattr(self, name) is not None]

    @property
    def family(self) -> str:
        """Name of the section that defines the networks: mlp, cnn, model or python."""
        return self._families[0]

    def draw(self, suggester: Suggester, seed: int) -> TrialConfig:
        """Draw a complete config: the walk asks the suggester for each parameter.

        Raises: ModelError if a function of the user's own fails, UsageError if it may not run.
        """
        if self.python is not None:
            return self._draw_by_python(self.python, suggester, seed)
        family = self.mlp or self.cnn or self.model
        assert family is not None
        drawn: dict[str, Any] = {"model": family.draw(suggester)}
        for name in HYPERPARAMETERS:
            field = getattr(self, name)
            drawn[name] = field.draw(suggester) if isinstance(field, Drawn) else pick(field, name, suggester)
        return TrialConfig(data=self.data or "", split=self.split, metric=self.metric, seed=seed, **drawn)

    def draws_of(self, config: TrialConfig) -> dict[str, Any]:
        """Return the value of every parameter with which the walk could give a config.

        There are more values than one walk asks for, and they may be outside the ranges.
        Raises: ValueError if the space has another family of networks.
        """
        draws = self._draws_of_network(config.model)
        for name in HYPERPARAMETERS:
            field, value = getattr(self, name), getattr(config, name)
            draws |= field.draws_of(value) if isinstance(field, Drawn) else {name: value}
        return draws

    def _draws_of_network(self, network: Network) -> dict[str, Any]:
        if isinstance(network, MLP) and self.mlp is not None:
            return self.mlp.draws_of(network)
        if isinstance(network, CNN) and self.cnn is not None:
            return self.cnn.draws_of(network)
        if isinstance(network, PythonNetwork) and self.model is not None:
            return self.model.draws_of(network)
        family = "python" if self.family == "model" else self.family
        raise ValueError(f"its family is {network.family}, the space's is {family}")

    def check_code(self) -> None:
        """Check that the user has named the Python files that this space needs. Raises: UsageError."""
        for section in (self, self.model):
            if section is not None and section.python is not None:
                user_code.path_of(section.python, section.digest)

    def _draw_by_python(self, reference: str, suggester: Suggester, seed: int) -> TrialConfig:
        try:
            config = user_code.load_function(reference, self.digest)(suggester)
        except HpoError:
            raise
        except Exception as error:
            raise ModelError(f"{reference}: failed with {user_code.one_line(error)}. Fix the function.") from error
        if not isinstance(config, TrialConfig):
            raise ModelError(f"{reference}: must return a TrialConfig, got {type(config).__name__}. Fix the function.")
        drawn = {name: pick(getattr(self, name), name, suggester) for name in ("epochs", "data_fraction", "image_size")}
        return dataclasses.replace(
            config, data=self.data or "", split=self.split, metric=self.metric, seed=seed, **drawn
        )

    @property
    def max_epochs(self) -> int:
        """Largest number of epochs that can be drawn."""
        return max(extremes(self.epochs))

    def check_inputs(self, input_shape: tuple[int, ...], where: str) -> None:
        """Check that the deepest network of the space can take inputs of a shape. Raises: DocumentError."""
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
        """Return the content that makes two spaces the same search: everything except the title."""
        content = documents.dump(self)
        del content["title"]
        return content


def load_space(name: str, *, trust_code: bool = False) -> SearchSpace:
    """Return the space of this name or path.

    With `trust_code`, the Python files that the document names may run in this session and in its workers, if `name`
    is a path: a mere name may have led to a document that lies in the working folder unseen.
    Raises: UsageError, DocumentError.
    """
    document = documents.find("space", name)
    trust_code = trust_code and name.endswith(".toml")
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
