"""Which trials can be trained together, and why a trial cannot be packed."""

from dataclasses import dataclass, replace

from hpo.config import CNN, MLP, Precision, PythonNetwork, TrialConfig
from hpo.training.dataset import DataKey, ResidentData, data_key
from hpo.training.packed.layout.cnn import form_of


@dataclass(frozen=True)
class Bucket:
    """The properties that the trials of one lane have in common; everything else may differ between slots."""

    data: DataKey
    batch: int
    """Rows per batch."""
    width: int
    """Smallest power of two, at least the family's minimum, that is no less than the width of any layer."""
    form: tuple[object, ...] = ()
    """Other properties that cannot be mixed: layer norm with other norms; of CNNs all but the channels."""
    precision: Precision = "fp32"

    def narrower_than(self, other: "Bucket") -> bool:
        """Return whether trials of this bucket can be trained in a lane of another bucket, which is wider."""
        return self.width < other.width and replace(self, width=other.width) == other


NARROWEST, FEWEST_CHANNELS = 64, 16
"""Minimum width of a bucket of MLPs, and minimum channels of one of CNNs: below, a step is mostly overhead, so that
narrower networks are padded instead of being put into separate lanes."""
WIDEST = 1024
"""Maximum width of a layer that is packed."""


def why_not_packed(config: TrialConfig, precision: Precision = "fp32") -> str | None:
    """Return the reason why a trial cannot share a program with others; None if it can."""
    model = config.model
    if isinstance(model, PythonNetwork):
        return "networks built by Python code are not packed"
    if isinstance(model, MLP) and not model.widths:
        return "a network without hidden layers is not packed"
    if isinstance(model, MLP) and precision == "bf16":
        return "bf16 is faster only for MLPs that use a whole device by themselves"
    if isinstance(model, CNN) and model.norm == "layer":
        return "layer norm over images is not packed"
    if model.residual:
        return "residual connections are not packed"
    if config.augment:
        return "augmented rows are not packed: they differ from trial to trial"
    if max(_widths(model)) > WIDEST:
        return f"layers wider than {WIDEST} use a whole device by themselves"
    if config.accumulation > 1:
        return "gradient accumulation is not packed"
    if config.batch_size < 2:
        return "a batch of one row is not packed"
    return None


def bucket_of(config: TrialConfig, data: ResidentData, precision: Precision = "fp32") -> Bucket:
    """Return the bucket of a trial. Trials that are not packed have one too: those with similar times per step."""
    model = config.model
    batch = min(config.batch_size, len(data.train_y))
    if isinstance(model, PythonNetwork):
        return Bucket(data_key(config), batch, 0, (model.python, model.digest), precision)
    narrowest = NARROWEST if isinstance(model, MLP) else FEWEST_CHANNELS
    form = form_of(model) if isinstance(model, CNN) else ("layer norm",) * (model.norm == "layer")
    widest = max((narrowest, *_widths(model)))
    return Bucket(data_key(config), batch, 1 << (widest - 1).bit_length(), form, precision)


def _widths(model: MLP | CNN) -> tuple[int, ...]:
    return model.channels if isinstance(model, CNN) else model.widths
