"""A fake engine: real curves by formula instead of training, so that the runner can be put under stress."""

import math
import time
from collections.abc import Callable

import numpy as np

from hpo.config import TrialConfig
from hpo.training.contract import Checkpoint, EpochResult, Examination, Facts, Fault, TrialFault


def accuracy(config: TrialConfig, epoch: int) -> float:
    """A smooth learning curve that the config determines; better near lr = 0.01."""
    top = 0.95 - 0.08 * abs(math.log10(config.optimizer.lr) + 2)
    return max(0.01, top) * (1 - math.exp(-epoch / (2 + config.seed % 5)))


class FakeEngine:
    """Holds `capacity` trials; `fault(config, epoch)` may return a Fault for an epoch."""

    def __init__(
        self,
        capacity: int = 1,
        epoch_seconds: float = 0.0,
        fault: Callable[[TrialConfig, int], Fault | None] = lambda config, epoch: None,
    ) -> None:
        self.capacity, self.epoch_seconds, self.fault = capacity, epoch_seconds, fault
        self.trials: dict[int, tuple[TrialConfig, list[EpochResult]]] = {}
        self.admitted: list[tuple[int, int]] = []
        """(key, epochs already done) of each trial ever admitted."""

    def room(self) -> int:
        return self.capacity - len(self.trials)

    def admit(self, key: int, config: TrialConfig, checkpoint: Checkpoint | None = None) -> Facts:
        assert self.room() > 0 and key not in self.trials
        fault = self.fault(config, 0)
        if fault is not None:
            raise TrialFault(fault)
        history = list(checkpoint.history) if checkpoint else []
        self.admitted.append((key, len(history)))
        self.trials[key] = (config, history)
        return Facts(parameters=1000, device="fake", precision="fp32")

    def step(self) -> dict[int, EpochResult | Fault]:
        time.sleep(self.epoch_seconds)
        outcomes: dict[int, EpochResult | Fault] = {}
        for key, (config, history) in self.trials.items():
            epoch = len(history) + 1
            fault = self.fault(config, epoch)
            if fault is not None:
                outcomes[key] = fault
                continue
            value = accuracy(config, epoch)
            history.append(EpochResult(epoch, value, 1 - value, value + 0.01, 1 - value, self.epoch_seconds))
            outcomes[key] = history[-1]
        return outcomes

    def snapshot(self, key: int) -> Checkpoint:
        config, history = self.trials[key]
        return Checkpoint(config, {"model.w": np.arange(3.0)}, tuple(history), "fp32")

    def examine(self, key: int) -> Examination:
        return Examination(train_accuracy=0.9, train_loss=0.3)

    def evict(self, key: int) -> None:
        del self.trials[key]
