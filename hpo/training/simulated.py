"""A simulated engine: curves by formula instead of training, to test and measure the runner without a network.

Like a network, it has a state that each epoch changes: a trial that resumed from anything but its own last
state would leave its curve, and never come back to it.
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


def first_state(config: TrialConfig) -> float:
    return (config.seed % 1000) / 1000


def next_state(config: TrialConfig, state: float, epoch: int) -> float:
    """A chaotic map: a state that is off by a bit is off by everything a few epochs later."""
    return (state * 3.7 + math.log10(config.optimizer.lr) + 0.618 * epoch) % 1.0


def value_of(config: TrialConfig, state: float, epoch: int) -> float:
    """A learning curve with noise that the state makes; better near lr = 0.01."""
    top = max(0.02, 0.94 - 0.08 * abs(math.log10(config.optimizer.lr) + 2))
    return top * (1 - math.exp(-epoch / (2 + config.seed % 5))) + 0.01 * state


def accuracy(config: TrialConfig, epoch: int) -> float:
    """The value after an epoch of the uninterrupted trial."""
    state = first_state(config)
    for e in range(1, epoch + 1):
        state = next_state(config, state, e)
    return value_of(config, state, epoch)


@dataclass
class SimulatedTrial:
    config: TrialConfig
    state: float
    history: list[EpochResult]


class SimulatedEngine:
    """Holds `capacity` trials; `fault(config, epoch)` may return a Fault for an epoch."""

    def __init__(
        self,
        capacity: int = 1,
        epoch_seconds: float = 0.0,
        fault: FaultOf = lambda config, epoch: None,
        on_admit: Callable[[int, int], None] = lambda key, epochs: None,
        costs: Callable[[TrialConfig, Cost], float] = lambda config, name: float(
            sum(getattr(config.model, "widths", ()))
        ),
        is_async: bool = False,
    ) -> None:
        self.is_async = is_async
        self.costs = costs
        self.measured: list[tuple[TrialConfig, tuple[Cost, ...]]] = []
        self.capacity, self.epoch_seconds, self.fault, self.on_admit = capacity, epoch_seconds, fault, on_admit
        self.trials: dict[int, SimulatedTrial] = {}
        self.admitted: list[tuple[int, int]] = []
        """(key, epochs already done) of each trial ever admitted."""

    def room(self) -> int:
        return self.capacity - len(self.trials)

    def admit(self, key: int, config: TrialConfig, checkpoint: Checkpoint | None = None) -> Facts:
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
        return Facts(parameters=1000, device="fake", precision="fp32")

    def measure(self, config: TrialConfig, wanted: Sequence[Cost]) -> Costs:
        self.measured.append((config, tuple(wanted)))
        return {name: self.costs(config, name) for name in wanted}

    def step(self) -> dict[int, EpochResult | Fault]:
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
        trial = self.trials[key]
        return Checkpoint(trial.config, {"model.state": np.array([trial.state])}, tuple(trial.history), "fp32")

    def examine(self, key: int) -> Examination:
        return Examination(train_accuracy=0.9, train_loss=0.3)

    def predict(self, key: int) -> NDArray[np.float32]:
        return np.full((4, 2), 0.5, dtype=np.float32)

    def evict(self, key: int) -> None:
        del self.trials[key]

    def status(self) -> dict[str, float]:
        return {}
