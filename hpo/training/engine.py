"""The interface between the loop that runs a study and the engines that train its trials.

An engine holds one or several trials, each under a key that the caller chooses. It knows configs and data, but not
studies. Training is a function of (config, data, epoch): the curve of a trial does not depend on what the engine
trained before, which other trials it trains, or how often the trial was checkpointed and resumed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hpo.config import WORST, Metric, TrialConfig
from hpo.constraints import Cost, Costs
from hpo.errors import HpoError

FaultKind = Literal["diverged", "oom", "error"]


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch."""

    epoch: int
    """Number of completed epochs, this one included."""
    validation_accuracy: float
    """Share of the validation rows that are classified correctly, 0 to 1."""
    validation_balanced_accuracy: float
    """Recall on the validation rows, averaged over the classes, 0 to 1."""
    validation_macro_f1: float
    """F1 on the validation rows, averaged over the classes, 0 to 1; 0 for a class that is never predicted."""
    validation_loss: float
    """Mean cross-entropy on the validation rows, >= 0."""
    train_accuracy: float
    """Accuracy on the batches of the epoch, while they were trained on, with dropout; 0 to 1."""
    train_loss: float
    """Mean cross-entropy on the batches of the epoch, while they were trained on, with dropout."""
    seconds: float
    """Duration of the epoch, validation included; in a lane, divided by the number of trials."""
    last: bool = False
    """Whether the training ends with this epoch."""

    def score(self, metric: Metric) -> float:
        """Return the value of a metric after this epoch; higher is better."""
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
    """Return the epoch whose weights a training ends with: the last one, or the best if the config says so."""
    return max(history, key=lambda result: result.score(config.metric)) if config.best_weights else history[-1]


@dataclass(frozen=True)
class Fault:
    """The reason why a trial's training failed."""

    kind: FaultKind
    """`diverged` (the loss is not finite), `oom` (out of memory) or `error`."""
    message: str
    """Description in one line."""


class DeviceUnusable(HpoError):
    """Raised where this process can use its device no longer; another process must go on with the trials."""

    exit_code = 75
    """EX_TEMPFAIL of sysexits.h: the supervisor replaces the worker."""


class TrialFault(Exception):
    """Raised by an engine for a trial that cannot be started or measured; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@dataclass(frozen=True)
class Facts:
    """Properties of a trial that are known once it is admitted."""

    parameters: int
    """Number of trainable parameters."""
    device: str
    """Device that trains it, such as `cpu` or `cuda:0`."""
    precision: str
    """`fp32`, `bf16` or `tf32`."""


@dataclass(frozen=True)
class Examination:
    """Metrics of a trained network in evaluation mode (without dropout), on training rows unless it says otherwise."""

    train_accuracy: float
    """Share of the rows that are classified correctly, 0 to 1."""
    train_loss: float
    """Mean cross-entropy on the rows."""
    sampling_error: float | None = None
    """Standard error of the score that comes from the choice of validation rows; None where that of accuracy, which
    follows from its value, is the score."""
    graph_failure: str = ""
    """Why the training took its steps one by one although a CUDA graph was wanted; empty otherwise."""


@dataclass(frozen=True)
class Checkpoint:
    """The complete state of a trial between two epochs: a training resumed from it gives the same curve."""

    config: TrialConfig
    tensors: Mapping[str, NDArray[Any]]
    """Weights and buffers as `model.NAME`, of the best epoch as `best.NAME`, their averages as `average.NAME` until the
    training ends, and optimizer state as `optimizer.INDEX.NAME`."""
    history: tuple[EpochResult, ...]
    """Results of the completed epochs."""
    precision: str
    """`fp32`, `bf16` or `tf32`."""

    @property
    def epoch(self) -> int:
        """Number of completed epochs."""
        return len(self.history)


class Engine(Protocol):
    """Trains the trials that it holds, epoch by epoch."""

    @property
    def is_async(self) -> bool:
        """Whether `step` only waits for a device that trains many trials, so that other work can use the CPU."""
        ...

    def room(self) -> int:
        """Return how many further trials can be admitted now."""
        ...

    def admit(self, key: int, config: TrialConfig, checkpoint: Checkpoint | None = None) -> Facts:
        """Take a trial, from its start or from a checkpoint. Raises: TrialFault; then it was not taken."""
        ...

    def measure(self, config: TrialConfig, wanted: Sequence[Cost]) -> Costs:
        """Return the `wanted` costs of an untrained network on this device. Raises: TrialFault."""
        ...

    def step(self) -> dict[int, EpochResult | Fault]:
        """Train until at least one trial has completed an epoch; return the outcome of each trial that has.

        Others may have an epoch under way, which they complete before they are looked at or removed.

        A trial with a fault is not trained further, and should be evicted.
        """
        ...

    def snapshot(self, key: int) -> Checkpoint:
        """Return a trial's state after its latest completed epoch."""
        ...

    def examine(self, key: int) -> Examination:
        """Evaluate a trial on training rows after its latest completed epoch."""
        ...

    def predict(self, key: int) -> NDArray[np.float32]:
        """Return a trial's probabilities on the validation rows after its latest epoch: [rows, classes]."""
        ...

    def evict(self, key: int) -> None:
        """Remove a trial and free its memory."""
        ...

    def status(self) -> Mapping[str, float]:
        """Return figures to display: the number of `lanes` and their `occupancy`, 0 to 1; empty without lanes."""
        ...
