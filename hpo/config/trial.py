"""`TrialConfig`: one training run described completely, so that the description alone can repeat it."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from hpo import documents
from hpo.config.augment import Augment
from hpo.config.fields import STRICT, Count, Positive, Rate
from hpo.config.metrics import Metric
from hpo.config.networks import Network
from hpo.config.optimizers import Optimizer
from hpo.config.schedules import Constant, Schedule
from hpo.config.source import DataSource, Split
from hpo.errors import DocumentError

FORMAT = 1
"""Version of the layout below; a reader refuses a config of a later one."""

Precision = Literal["auto", "fp32", "bf16"]
ClassWeight = Literal["none", "balanced"]


@dataclass(frozen=True)
class TrialConfig:
    """A complete training run: data, split, network, optimizer, schedule, and the seed all chance follows."""

    __pydantic_config__ = STRICT
    data: DataSource
    model: Annotated[Network, Field(discriminator="family")]
    optimizer: Annotated[Optimizer, Field(discriminator="name")]
    batch_size: Count
    epochs: Count
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Initial weights, data order and dropout follow from it."""
    schedule: Annotated[Schedule, Field(discriminator="name")] = field(default_factory=Constant)
    split: Split = field(default_factory=Split)
    metric: Metric = "accuracy"
    """What is looked at on the validation rows: by patience, best weights and the search."""
    class_weight: ClassWeight = "none"
    """`balanced` weighs each row's loss by rows / (classes * rows of its class), as scikit-learn does."""
    augment: Augment = field(default_factory=Augment)
    data_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of the training rows that is trained on: stratified, by the split's seed."""
    image_size: Count | None = None
    """Width and height that images are scaled to; None leaves them."""
    label_smoothing: Rate = 0.0
    """Share of the target that is spread over all classes."""
    clip_norm: Positive | None = None
    """The gradient is scaled down to this norm where it is larger."""
    patience: Count | None = None
    """Training ends when the metric has not improved for so many epochs; None for all epochs."""
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
            f"batch {self.batch_size}" + (f" in {self.accumulation} parts" if self.accumulation > 1 else ""),
        ]
        return ", ".join(part for part in parts if part)

    def input_shape(self, of_data: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of what the network takes, given that of the data."""
        if self.image_size is None or len(of_data) != 3:
            return of_data
        return (of_data[0], self.image_size, self.image_size)

    def with_seed(self, seed: int) -> "TrialConfig":
        """Return the same run under another seed."""
        return replace(self, seed=seed)


def own_fields(kind: type[Optimizer] | type[Schedule]) -> list[str]:
    """Return the names of the hyperparameters that an optimizer or schedule has."""
    return [f.name for f in fields(kind) if f.name != "name"]
