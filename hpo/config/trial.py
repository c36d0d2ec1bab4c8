"""`TrialConfig`: the complete description of one training run, sufficient to repeat it."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from hpo import documents
from hpo.config.augment import Augment
from hpo.config.averages import EMA, Average, NoAverage
from hpo.config.fields import STRICT, Count, Positive, Rate
from hpo.config.metrics import Metric
from hpo.config.networks import Network
from hpo.config.optimizers import Optimizer
from hpo.config.schedules import Constant, Schedule
from hpo.config.source import DataSource, Split
from hpo.errors import DocumentError

FORMAT = 1
"""Version of the layout below; a reader refuses a config of a later one."""

Precision = Literal["auto", "fp32", "bf16", "tf32"]
ClassWeight = Literal["none", "balanced"]


@dataclass(frozen=True)
class TrialConfig:
    """A complete training run: data, split, network, optimizer, schedule, and the seed of all random numbers."""

    __pydantic_config__ = STRICT
    data: DataSource
    model: Annotated[Network, Field(discriminator="family")]
    optimizer: Annotated[Optimizer, Field(discriminator="name")]
    batch_size: Count
    epochs: Count
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the initial weights, the order of the rows, dropout and augmentation."""
    schedule: Annotated[Schedule, Field(discriminator="name")] = field(default_factory=Constant)
    split: Split = field(default_factory=Split)
    metric: Metric = "accuracy"
    """Metric on the validation rows, used by patience, best weights and the search."""
    class_weight: ClassWeight = "none"
    """`balanced` weights the loss of each row by rows / (classes * rows of its class), as in scikit-learn."""
    augment: Augment = field(default_factory=Augment)
    data_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training rows that is used: a stratified subset, by the split's seed."""
    image_size: Count | None = None
    """Width and height that images are scaled to; None for their original size."""
    label_smoothing: Rate = 0.0
    """Share of the target that is distributed over all classes."""
    clip_norm: Positive | None = None
    """The gradient is scaled down to this norm where it is larger."""
    patience: Count | None = None
    """Training ends when the metric has not improved for this number of epochs; None to train all epochs."""
    best_weights: bool = False
    """Whether training ends with the weights of the best epoch instead of those of the last."""
    average: Annotated[Average, Field(discriminator="name")] = field(default_factory=NoAverage)
    """Which average of the weights over the steps is validated and kept."""
    accumulation: Count = 1
    """Number of parts in which the gradient of a batch is computed, to use less memory. Batch norm uses the statistics
    of each part."""
    precision: Precision = "auto"
    """`auto` is bf16 autocast where it is faster on the device, by a rule that depends on shapes only. `tf32` rounds
    factors in products and convolutions to ten bits, on NVIDIA GPUs since Ampere; elsewhere it is fp32."""
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """Return the config as plain JSON types; without `average` if it has none, as before hpo knew averages."""
        content = documents.dump(self)
        if isinstance(self.average, NoAverage):
            del content["average"]
        return content

    @staticmethod
    def from_dict(content: dict[str, Any], where: str) -> "TrialConfig":
        """Return the config that `to_dict` returned. Raises: DocumentError, which names `where`."""
        if not isinstance(content, dict):
            raise DocumentError(f"{where}: must be a table, got {type(content).__name__}.")
        version = content.get("format", FORMAT)
        if isinstance(version, int) and version > FORMAT:
            raise DocumentError(
                f"{where}: format must be <= {FORMAT}, got {version}. It was made by a newer hpo: upgrade hpo."
            )
        return documents.check(TrialConfig, content, where)

    def summary(self) -> str:
        """Return a description in one line, to display."""
        optimizer = self.optimizer
        kinds = [f"{name} {value:g}" for name, value in asdict(self.augment).items() if value]
        parts = [
            self.model.summary(),
            f"{optimizer.name} lr {optimizer.lr:.3g} wd {optimizer.weight_decay:.2g}",
            self.schedule.name if self.schedule.name != "none" else "",
            f"augmented: {', '.join(kinds)}" if kinds else "",
            f"{100 * self.data_fraction:g} % of the rows" if self.data_fraction < 1 else "",
            f"images {self.image_size}x{self.image_size}" if self.image_size else "",
            "class weights" if self.class_weight != "none" else "",
            f"smoothing {self.label_smoothing:g}" if self.label_smoothing else "",
            f"clip {self.clip_norm:g}" if self.clip_norm else "",
            f"patience {self.patience}" if self.patience else "",
            "best weights" if self.best_weights else "",
            f"weights averaged over {self.average.horizon:.3g} epochs" if isinstance(self.average, EMA) else "",
            f"batch {self.batch_size}" + (f" in {self.accumulation} parts" if self.accumulation > 1 else ""),
        ]
        return ", ".join(part for part in parts if part)

    def input_shape(self, of_data: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the network's input, given that of the data."""
        if self.image_size is None or len(of_data) != 3:
            return of_data
        return (of_data[0], self.image_size, self.image_size)

    def with_seed(self, seed: int) -> "TrialConfig":
        """Return the same run under another seed."""
        return replace(self, seed=seed)


def hyperparameters_of(kind: type[Optimizer] | type[Schedule]) -> list[str]:
    """Return the names of the hyperparameters that an optimizer or schedule has."""
    return [f.name for f in fields(kind) if f.name != "name"]
