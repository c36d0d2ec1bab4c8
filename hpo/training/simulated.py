"""A simulated engine: learning curves by formula instead of training, to test and measure the code around engines.

As in real training, each epoch changes a state: a trial that is resumed from any state but its own latest one leaves
its curve and never returns to it, which tests can detect.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpo.config import TrialConfig
from hpo.constraints import Cost, Costs
from hpo.training.engine import Checkpoint, EpochResult, Examination, Facts, Fault, TrialFault

FaultOf = Callable[[TrialConfig, int], Fault | None]
"""Returns the fault of a trial in an epoch (counted from 1; 0 is its admission); None if it has none."""


def first_state(config: TrialConfig) -> float:
    """Return the state of a trial before its first epoch, 0 to 1."""
    return (config.seed % 1000) / 1000


def next_state(config: TrialConfig, state: float, epoch: int) -> float:
    """Return the state after an epoch: a chaotic map, in which the smallest difference grows from epoch to epoch."""
    return (state * 3.7 + math.log10(config.optimizer.lr) + 0.618 * epoch) % 1.0


def value_of(config: TrialConfig, state: float, epoch: int) -> float:
    """Return the validation accuracy after an epoch: a saturating curve, highest for lr = 0.01, plus the state."""
    top = max(0.02, 0.94 - 0.08 * abs(math.log10(config.optimizer.lr) + 2))
    return top * (1 - math.exp(-epoch / (2 + config.seed % 5))) + 0.01 * state


def accuracy(config: TrialConfig, epoch: int) -> float:
    """Return the validation accuracy after an epoch of a trial that was never interrupted."""
    state = first_state(config)
    for e in range(1, epoch + 1):
        state = next_state(config, state, e)
    return value_of(config, state, epoch)


def total_width(config: TrialConfig, cost: Cost) -> float:
    """Return the sum of the widths of an MLP's layers, 0 for other networks: the default for every cost."""
    return float(sum(getattr(config.model, "widths", ())))


@dataclass
class SimulatedTrial:
    """A trial in a simulated engine."""

    config: TrialConfig
    state: float
    """State after the latest epoch, 0 to 1."""
    history: list[EpochResult]
    """Results of the completed epochs."""


class SimulatedEngine:
    """An `hpo.training.engine.Engine` that trains nothing: each step takes a given time and completes an epoch of all
    its trials.

    Nothing is random: the curve of a trial is a function of its config, and equals `accuracy`.
    """

    def __init__(
        self,
        capacity: int = 1,
        epoch_seconds: float = 0.0,
        fault: FaultOf = lambda config, epoch: None,
        on_admit: Callable[[int, int], None] = lambda key, epochs: None,
        *,
        costs: Callable[[TrialConfig, Cost], float] = total_width,
        is_async: bool = False,
    ) -> None:
        """Make an empty engine.

        capacity: number of trials that it holds at once.
        epoch_seconds: duration of a step.
        fault: called for each trial and epoch; a Fault that it returns is the outcome of the epoch, or, for epoch 0,
            refuses the trial.
        on_admit: called with key and number of completed epochs of each trial that is admitted.
        costs: returns a cost of a config's untrained network.
        is_async: whether the engine says that a step only waits for a device.
        """
        self.capacity, self.epoch_seconds, self.fault, self.on_admit = capacity, epoch_seconds, fault, on_admit
        self.costs, self.is_async = costs, is_async
        self.measured: list[tuple[TrialConfig, tuple[Cost, ...]]] = []
        """Arguments of each call of `measure`."""
        self.trials: dict[int, SimulatedTrial] = {}
        """Trials held, by key."""
        self.admitted: list[tuple[int, int]] = []
        """Key and number of completed epochs of each trial that was ever admitted."""

    def room(self) -> int:
        """Return how many further trials can be admitted now."""
        return self.capacity - len(self.trials)

    def admit(self, key: int, config: TrialConfig, checkpoint: Checkpoint | None = None) -> Facts:
        """Take a trial, from its start or from a checkpoint. Raises: TrialFault if `fault` refuses it."""
        assert self.room() > 0 and key not in self.trials
        fault = self.fault(config, 0)
        if fault is not None:
            raise TrialFault(fault)
        if checkpoint is None:
            self.trials[key] = SimulatedTrial(config, first_state(config), [])
        else:
            self.trials[key] = SimulatedTrial(
                config, float(checkpoint.tensors["model.state"][0]), list(checkpoint.history)
            )
        epochs = len(self.trials[key].history)
        self.admitted.append((key, epochs))
        self.on_admit(key, epochs)
        return Facts(parameters=1000, device="simulated", precision="fp32")

    def measure(self, config: TrialConfig, wanted: Sequence[Cost]) -> Costs:
        """Return the wanted costs by `costs`, and note the call in `measured`."""
        self.measured.append((config, tuple(wanted)))
        return {name: self.costs(config, name) for name in wanted}

    def step(self) -> dict[int, EpochResult | Fault]:
        """Sleep for the duration of an epoch, then return the outcome of an epoch of every trial."""
        time.sleep(self.epoch_seconds)
        outcomes: dict[int, EpochResult | Fault] = {}
        for key, trial in self.trials.items():
            epoch = len(trial.history) + 1
            fault = self.fault(trial.config, epoch)
            if fault is not None:
                outcomes[key] = fault
                continue
            trial.state = next_state(trial.config, trial.state, epoch)
            value = value_of(trial.config, trial.state, epoch)
            result = EpochResult(
                epoch=epoch,
                validation_accuracy=value,
                validation_balanced_accuracy=value,
                validation_macro_f1=value,
                validation_loss=1 - value,
                train_accuracy=value + 0.01,
                train_loss=1 - value,
                seconds=self.epoch_seconds,
                last=epoch >= trial.config.epochs,
            )
            trial.history.append(result)
            outcomes[key] = result
        return outcomes

    def snapshot(self, key: int) -> Checkpoint:
        """Return a trial's state after its latest epoch; its only tensor is `model.state`."""
        trial = self.trials[key]
        return Checkpoint(trial.config, {"model.state": np.array([trial.state])}, tuple(trial.history), "fp32")

    def examine(self, key: int) -> Examination:
        """Return a constant result."""
        return Examination(train_accuracy=0.9, train_loss=0.3)

    def predict(self, key: int) -> NDArray[np.float32]:
        """Return equal probabilities of two classes for four rows."""
        return np.full((4, 2), 0.5, dtype=np.float32)

    def evict(self, key: int) -> None:
        """Remove a trial."""
        del self.trials[key]

    def status(self) -> dict[str, float]:
        """Return nothing: there are no lanes."""
        return {}
