"""`TrialConfig`: one training run described completely, so that the description alone can repeat it.

A config is what a space draws, what the store keeps on each trial, what an exported file holds and the only
thing that training knows. Kinds of optimizer, schedule and network are told apart by `name` or `family`.
"""

import math
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag

from hpo import documents
from hpo.errors import DocumentError, ModelError

FORMAT = 1
"""Version of the layout below; a reader refuses a config of a later one."""

Activation = Literal["relu", "leaky_relu", "gelu", "tanh", "sigmoid"]
Norm = Literal["none", "batch", "layer"]
Pool = Literal["max", "avg"]
Head = Literal["average", "flatten"]
Precision = Literal["auto", "fp32", "bf16"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]

_STRICT = ConfigDict(extra="forbid")
_FROM_LIST = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
"""Within a space a document has become Python's types already, and strictness takes no list for a tuple."""


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron: each hidden layer is linear, norm, activation, dropout."""

    __pydantic_config__ = _STRICT
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

    __pydantic_config__ = _STRICT
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


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent without momentum."""

    __pydantic_config__ = _STRICT
    lr: Positive
    weight_decay: NotNegative = 0.0
    name: Literal["sgd"] = "sgd"


@dataclass(frozen=True)
class SGDMomentum:
    """Stochastic gradient descent with momentum, of Nesterov's kind if so told."""

    __pydantic_config__ = _STRICT
    lr: Positive
    weight_decay: NotNegative = 0.0
    momentum: Rate = 0.9
    nesterov: bool = False
    name: Literal["sgd_momentum"] = "sgd_momentum"


@dataclass(frozen=True)
class Adam:
    """Adam; weight decay is added to the gradient."""

    __pydantic_config__ = _STRICT
    lr: Positive
    weight_decay: NotNegative = 0.0
    beta1: Rate = 0.9
    beta2: Rate = 0.999
    eps: Positive = 1e-8
    name: Literal["adam"] = "adam"


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay."""

    __pydantic_config__ = _STRICT
    lr: Positive
    weight_decay: NotNegative = 0.0
    beta1: Rate = 0.9
    beta2: Rate = 0.999
    eps: Positive = 1e-8
    name: Literal["adamw"] = "adamw"


@dataclass(frozen=True)
class RMSprop:
    """RMSprop; `alpha` smooths the squared gradient."""

    __pydantic_config__ = _STRICT
    lr: Positive
    weight_decay: NotNegative = 0.0
    alpha: Rate = 0.99
    eps: Positive = 1e-8
    name: Literal["rmsprop"] = "rmsprop"


@dataclass(frozen=True)
class Constant:
    """The learning rate stays as it is."""

    __pydantic_config__ = _STRICT
    name: Literal["none"] = "none"


@dataclass(frozen=True)
class Cosine:
    """The learning rate falls along half a cosine to `floor` times itself at the last step."""

    __pydantic_config__ = _STRICT
    floor: Rate = 0.0
    name: Literal["cosine"] = "cosine"


@dataclass(frozen=True)
class OneCycle:
    """From lr/25 up to lr during the first `warmup` part of all steps, then down to almost zero.

    Both ways along half a cosine; 25 and the final 1e-4 of the start are those of torch's OneCycleLR.
    """

    __pydantic_config__ = _STRICT
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.3
    name: Literal["one_cycle"] = "one_cycle"


@dataclass(frozen=True)
class Step:
    """The training is cut into `parts` equal stretches; after each the learning rate is multiplied by `gamma`."""

    __pydantic_config__ = _STRICT
    parts: Annotated[int, Field(ge=2)] = 3
    gamma: Share = 0.1
    name: Literal["step"] = "step"


@dataclass(frozen=True)
class Exponential:
    """The learning rate falls by the same factor at each step, to `final` times itself at the last one."""

    __pydantic_config__ = _STRICT
    final: Share = 0.01
    name: Literal["exponential"] = "exponential"


@dataclass(frozen=True)
class WarmupCosine:
    """Linearly up during the first `warmup` part of all steps, then down along half a cosine to zero."""

    __pydantic_config__ = _STRICT
    warmup: Share = 0.05
    name: Literal["warmup_cosine"] = "warmup_cosine"


@dataclass(frozen=True)
class Plateau:
    """The learning rate is multiplied by `gamma` whenever the validation loss has not improved for `patience` epochs.

    An improvement is one of at least 1e-4 of the best, as in torch's ReduceLROnPlateau.
    """

    __pydantic_config__ = _STRICT
    patience: Count = 3
    gamma: Share = 0.3
    name: Literal["plateau"] = "plateau"


Network = MLP | CNN
Optimizer = SGD | SGDMomentum | Adam | AdamW | RMSprop
Schedule = Constant | Cosine | OneCycle | Step | Exponential | WarmupCosine | Plateau

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "sgd_momentum": SGDMomentum,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
}
SCHEDULES: dict[str, type[Schedule]] = {
    "none": Constant,
    "cosine": Cosine,
    "one_cycle": OneCycle,
    "step": Step,
    "exponential": Exponential,
    "warmup_cosine": WarmupCosine,
    "plateau": Plateau,
}


@dataclass(frozen=True)
class Split:
    """How validation is cut from the training split: stratified by class, by this seed."""

    __pydantic_config__ = _STRICT
    validation: Annotated[int | float, Field(gt=0)] = 0.2
    """Number of rows if >= 1, else the fraction of the training split."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.validation >= 1 and self.validation != int(self.validation):
            raise ValueError(f"validation must be a fraction below 1 or a whole number, got {self.validation}.")

    def rows_of(self, total: int) -> int:
        """Return how many of `total` training rows are validated on."""
        return int(self.validation) if self.validation >= 1 else math.ceil(self.validation * total)


@dataclass(frozen=True)
class OwnData:
    """Data of the user's own: a table, arrays, or a folder of images. Paths are best given whole."""

    __pydantic_config__ = _STRICT
    csv: str | None = None
    """A CSV file with a header line, or a Parquet file; texts are categories, missing numbers become the median."""
    npz: str | None = None
    """Arrays x [N, F], [N, H, W] or [N, C, H, W] and y [N], whole numbers from 0; x_test and y_test if there are."""
    image_folder: str | None = None
    """A folder with one folder of images per class, or with two of those, train and test."""
    target: str | None = None
    """Column of a table that holds the class."""
    ignore: Annotated[tuple[str, ...], _FROM_LIST] = ()
    """Columns of a table to leave out."""
    shape: Annotated[tuple[Count, ...], _FROM_LIST] | None = None
    """What an npz file's rows are reshaped to, as [3, 32, 32]."""
    size: Count = 32
    """Width and height that images of a folder are scaled to."""
    grey: bool = False
    """Take images of a folder as grey ones."""
    skip_broken: bool = False
    """Leave out images that cannot be decoded."""
    test: str | None = None
    """File or folder of the same kind with the test rows."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Without test rows of its own: the part that is cut off for them, by class and a fixed seed."""

    def __post_init__(self) -> None:
        given = [name for name in ("csv", "npz", "image_folder") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of csv, npz and image_folder is required, got {', '.join(given) or 'none'}.")
        if self.csv is not None and self.target is None:
            raise ValueError("target is required with csv: the column that holds the class. Add it.")

    @property
    def kind(self) -> Literal["csv", "npz", "image_folder"]:
        """Which of the three it is."""
        return "csv" if self.csv is not None else ("npz" if self.npz is not None else "image_folder")

    @property
    def path(self) -> str:
        """The file or folder."""
        return str(getattr(self, self.kind))

    @property
    def name(self) -> str:
        """The file's or folder's name, without its suffix."""
        return Path(self.path).stem


def _data_form(value: Any) -> str:
    return "own" if isinstance(value, dict | OwnData) else "name"


DataSource = Annotated[Annotated[str, Tag("name")] | Annotated[OwnData, Tag("own")], Discriminator(_data_form)]
"""A known data set by its name, or one's own."""


@dataclass(frozen=True)
class TrialConfig:
    """A complete training run: data, split, network, optimizer, schedule, and the seed all chance follows."""

    __pydantic_config__ = _STRICT
    data: DataSource
    model: Annotated[Network, Field(discriminator="family")]
    optimizer: Annotated[Optimizer, Field(discriminator="name")]
    batch_size: Count
    epochs: Count
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Initial weights, data order and dropout follow from it."""
    schedule: Annotated[Schedule, Field(discriminator="name")] = field(default_factory=Constant)
    split: Split = field(default_factory=Split)
    label_smoothing: Rate = 0.0
    """Share of the target that is spread over all classes."""
    clip_norm: Positive | None = None
    """The gradient is scaled down to this norm where it is larger."""
    patience: Count | None = None
    """Training ends when the validation accuracy has not improved for so many epochs; None for all epochs."""
    best_weights: bool = False
    """At the end the network takes the weights of its best epoch; else it keeps those of the last."""
    accumulation: Count = 1
    """Parts that a batch is trained in, one after another: the same batch size in less memory. Batch norm sees
    the parts."""
    precision: Precision = "auto"
    """`auto` takes bf16 autocast where the device is faster with it, by a rule that depends on shapes only."""
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """Return the config as plain JSON types."""
        return documents.dump(self)

    @staticmethod
    def from_dict(content: dict[str, Any], where: str) -> "TrialConfig":
        """Read what `to_dict` gave. Raises: DocumentError, at `where`, for anything else."""
        found = content.get("format", FORMAT)
        if isinstance(found, int) and found > FORMAT:
            raise DocumentError(
                f"{where}: format must be <= {FORMAT}, got {found}. It was made by a newer hpo: upgrade hpo."
            )
        return documents.check(TrialConfig, content, where)

    def summary(self) -> str:
        """Return the run in one line for people."""
        model, optimizer = self.model, self.optimizer
        if isinstance(model, MLP):
            network = f"MLP {'-'.join(map(str, model.widths))}"
        else:
            network = f"CNN {'-'.join(map(str, model.channels))}" + (f" x{model.convs}" if model.convs > 1 else "")
        dropout = "/".join(f"{rate:g}" for rate in dict.fromkeys(model.dropout) if rate > 0)
        parts = [
            f"{network} {model.activation}",
            f"{model.norm} norm" if model.norm != "none" else "",
            f"dropout {dropout}" if dropout else "",
            f"{optimizer.name} lr {optimizer.lr:.3g} wd {optimizer.weight_decay:.2g}",
            self.schedule.name if self.schedule.name != "none" else "",
            f"smoothing {self.label_smoothing:g}" if self.label_smoothing else "",
            f"clip {self.clip_norm:g}" if self.clip_norm else "",
            f"patience {self.patience}" if self.patience else "",
            "best weights" if self.best_weights else "",
            f"batch {self.batch_size}" + (f" in {self.accumulation} parts" if self.accumulation > 1 else ""),
        ]
        return ", ".join(part for part in parts if part)

    def with_seed(self, seed: int) -> "TrialConfig":
        """Return the same run under another seed."""
        return replace(self, seed=seed)


def own_fields(kind: type[Optimizer] | type[Schedule]) -> list[str]:
    """Return the names of the hyperparameters that an optimizer or schedule has."""
    return [f.name for f in fields(kind) if f.name != "name"]


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
