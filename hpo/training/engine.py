"""The contract between whoever runs a study and whatever trains its trials.

An engine holds some trials at once, each under a key that the caller chooses. It knows configs, data and
nothing of studies. Training is a function of (config, data, epoch): a trial's curve does not depend on what
the engine trained before, what it trains beside it, or how often it was checkpointed and resumed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hpo.config import WORST, Metric, TrialConfig
from hpo.constraints import Cost, Costs

FaultKind = Literal["diverged", "oom", "error"]


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave. Training figures are means over the epoch's batches, dropout at work."""

    epoch: int
    """Epochs completed, this one included."""
    validation_accuracy: float
    validation_balanced_accuracy: float
    """Mean over the classes of the share of a class's rows that is right."""
    validation_macro_f1: float
    """Mean over the classes of F1, 0 for a class never predicted."""
    validation_loss: float
    train_accuracy: float
    train_loss: float
    seconds: float
    last: bool = False
    """Whether the training ends with this epoch."""

    def score(self, metric: Metric) -> float:
        """Return what a metric says of the network after this epoch; higher is better."""
        match metric:
            case "accuracy":
                return self.validation_accuracy
            case "balanced_accuracy":
                return self.validation_balanced_accuracy
            case "macro_f1":
                return self.validation_macro_f1
            case "neg_log_loss":
                return max(-self.validation_loss, WORST[metric])


def final(config: TrialConfig, history: Sequence[EpochResult]) -> EpochResult:
    """Return the epoch whose weights a training ends with: the last one or, if the config wants it, the best."""
    return max(history, key=lambda result: result.score(config.metric)) if config.best_weights else history[-1]


@dataclass(frozen=True)
class Fault:
    """Why a trial cannot go on: `diverged` (loss not finite), `oom` (out of memory) or `error`."""

    kind: FaultKind
    message: str


class TrialFault(Exception):
    """Raised by `Engine.admit` for a trial that cannot even start."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@dataclass(frozen=True)
class Facts:
    """What is known of a trial once it is admitted."""

    parameters: int
    """Trainable."""
    device: str
    precision: str


@dataclass(frozen=True)
class Examination:
    """A closer look at a network, without dropout, once its training ends."""

    train_accuracy: float
    train_loss: float


@dataclass(frozen=True)
class Checkpoint:
    """A trial between two epochs: everything that its training needs to go on as if never stopped."""

    config: TrialConfig
    tensors: Mapping[str, NDArray[Any]]
    """Weights, buffers and optimizer state, by name."""
    history: tuple[EpochResult, ...]
    precision: str

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return len(self.history)


class Engine(Protocol):
    """Trains admitted trials side by side."""

    @property
    def is_async(self) -> bool:
        """Say whether `step` only waits for a device that trains many: others may use the processor meanwhile."""
        ...

    def room(self) -> int:
        """Return how many more trials would be taken now."""
        ...

    def admit(self, key: int, config: TrialConfig, checkpoint: Checkpoint | None = None) -> Facts:
        """Take a trial, from its start or from a checkpoint. Raises: TrialFault; then it was not taken."""
        ...

    def measure(self, config: TrialConfig, wanted: Sequence[Cost]) -> Costs:
        """Return what an untrained network costs here. Raises: TrialFault where that cannot be told."""
        ...

    def step(self) -> dict[int, EpochResult | Fault]:
        """Train until at least one trial has completed an epoch; return the outcome of each that has.

        A trial that met a fault takes no further part and waits to be evicted.
        """
        ...

    def snapshot(self, key: int) -> Checkpoint:
        """Return a trial's state after its last completed epoch."""
        ...

    def examine(self, key: int) -> Examination:
        """Look closer at a trial after its last completed epoch."""
        ...

    def predict(self, key: int) -> NDArray[np.float32]:
        """Return a trial's probabilities on the validation rows after its last epoch: [rows, classes]."""
        ...

    def evict(self, key: int) -> None:
        """Drop a trial and free what it held."""
        ...

    def status(self) -> Mapping[str, float]:
        """Return what people who watch may want to know: `lanes`, `occupancy`; empty if there is nothing to say."""
        ...
