"""Which trials may be trained together, and why another may not be."""

from dataclasses import dataclass

from hpo.config import MLP, PythonNetwork, TrialConfig
from hpo.training.dataset import DataKey, ResidentData, data_key


@dataclass(frozen=True)
class Bucket:
    """What the trials of one lane have in common: the rows, how many make a batch, about how wide the networks are.

    Everything else may differ from slot to slot.
    """

    data: DataKey
    batch: int
    width: int
    """The power of two, at least `NARROWEST`, that no layer's width exceeds."""


NARROWEST = 64
"""Narrower networks are padded rather than parted: below this width a step is all overhead."""
WIDEST = 1024


def why_alone(config: TrialConfig) -> str | None:
    """Return why a trial cannot share a program with others; None if it can, in fp32.

    Other precisions are chosen only where one network keeps a device busy.
    """
    model = config.model
    if isinstance(model, PythonNetwork):
        return "networks of the user's own are not packed"
    if not isinstance(model, MLP):
        return "convolutions are not packed: grouped ones were measured to bring nothing on a CPU"
    if not model.widths:
        return "a network without hidden layers is not packed"
    if model.norm == "layer":
        return "layer norm is not packed: padding would count in its mean"
    if model.residual:
        return "residual connections are not packed"
    if config.augment:
        return "augmented rows are not packed: each trial has its own"
    if max(model.widths) > WIDEST:
        return f"layers wider than {WIDEST} fill a device alone"
    if config.accumulation > 1:
        return "batches in parts are not packed"
    if config.batch_size < 2:
        return "a batch of one row is not packed"
    return None


def bucket_of(config: TrialConfig, data: ResidentData) -> Bucket:
    """Return the bucket of a trial that can be packed."""
    assert isinstance(config.model, MLP)
    widest = max(NARROWEST, *config.model.widths)
    batch = min(config.batch_size, len(data.train_y))
    return Bucket(data_key(config), batch, 1 << (widest - 1).bit_length())
