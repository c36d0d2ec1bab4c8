"""Which trials may be trained together, and why another may not be."""

from dataclasses import dataclass, replace

from hpo.config import CNN, MLP, Precision, PythonNetwork, TrialConfig
from hpo.training.dataset import DataKey, ResidentData, data_key
from hpo.training.packed.cnn_layout import form_of


@dataclass(frozen=True)
class Bucket:
    """What the trials of one lane have in common; everything else may differ from slot to slot."""

    data: DataKey
    batch: int
    """Rows."""
    width: int
    """The power of two, at least the family's narrowest, that no layer's width exceeds."""
    form: tuple[object, ...] = ()
    """What else cannot be mixed: layer norm with others; of convolutional networks all but the channels."""
    precision: Precision = "fp32"

    def narrower_than(self, other: "Bucket") -> bool:
        """Say whether its trials could be trained in a lane of another bucket, which is wider."""
        return self.width < other.width and replace(self, width=other.width) == other


NARROWEST, FEWEST_CHANNELS = 64, 16
"""Narrower networks are padded rather than parted: below this width a step is all overhead."""
WIDEST = 1024


def why_alone(config: TrialConfig, precision: Precision = "fp32") -> str | None:
    """Return why a trial cannot share a program with others; None if it can."""
    model = config.model
    if isinstance(model, PythonNetwork):
        return "networks of the user's own are not packed"
    if isinstance(model, MLP) and not model.widths:
        return "a network without hidden layers is not packed"
    if isinstance(model, MLP) and precision != "fp32":
        return "lower precision pays only where a network keeps a device busy alone"
    if isinstance(model, CNN) and model.norm == "layer":
        return "layer norm over images is not packed"
    if model.residual:
        return "residual connections are not packed"
    if config.augment:
        return "augmented rows are not packed: each trial has its own"
    if max(_widths(model)) > WIDEST:
        return f"layers wider than {WIDEST} fill a device alone"
    if config.accumulation > 1:
        return "batches in parts are not packed"
    if config.batch_size < 2:
        return "a batch of one row is not packed"
    return None


def bucket_of(config: TrialConfig, data: ResidentData, precision: Precision = "fp32") -> Bucket:
    """Return the bucket of a trial: what it could share a program with, or what is trained at about the same pace."""
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
