"""A trial's course: what its epochs gave, when it ends, which epoch was best. The same for every engine."""

import math
from collections.abc import Sequence
from dataclasses import replace

from hpo.config import TrialConfig
from hpo.training.engine import EpochResult, Fault, final
from hpo.training.metrics import Metrics
from hpo.training.schedules import lr_factor


class History:
    """The epochs of one trial so far, and what follows from them."""

    def __init__(self, config: TrialConfig, history: Sequence[EpochResult] = ()) -> None:
        self.config = config
        self.history = list(history)

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return len(self.history)

    @property
    def finished(self) -> bool:
        """Whether there is no further epoch."""
        return bool(self.history) and self.history[-1].last

    @property
    def final(self) -> EpochResult:
        """The epoch whose weights the training ends with."""
        return final(self.config, self.history)

    @property
    def improved(self) -> bool:
        """Whether the latest epoch is better than all before it."""
        values = [result.score(self.config.metric) for result in self.history]
        return all(value < values[-1] for value in values[:-1])

    def lrs(self, steps: int) -> list[float]:
        """Return the learning rate at each step of the next epoch, `steps` to an epoch."""
        return [self.lr_at(self.epoch * steps + step, steps) for step in range(steps)]

    def lr_at(self, step: int, steps: int) -> float:
        """Return the learning rate at a step, counted over all epochs of `steps` steps."""
        losses = [result.validation_loss for result in self.history]
        factor = lr_factor(self.config.schedule, step, self.config.epochs * steps, losses)
        return self.config.optimizer.lr * factor

    def take(self, training: tuple[float, float], validation: Metrics | None, seconds: float) -> EpochResult | Fault:
        """Add an epoch: accuracy and loss in training, and what it is worth; a loss that is not finite is a fault.

        `validation` may be left out where the training loss is not finite.
        """
        train_accuracy, train_loss = training
        if validation is None or not (math.isfinite(train_loss) and math.isfinite(validation.loss)):
            return Fault("diverged", f"the loss was not finite in epoch {self.epoch + 1}")
        result = EpochResult(
            epoch=self.epoch + 1,
            validation_accuracy=validation.accuracy,
            validation_balanced_accuracy=validation.balanced_accuracy,
            validation_macro_f1=validation.macro_f1,
            validation_loss=validation.loss,
            train_accuracy=train_accuracy,
            train_loss=train_loss,
            seconds=seconds,
        )
        if result.epoch >= self.config.epochs or self._waited_enough(result):
            result = replace(result, last=True)
        self.history.append(result)
        return result

    def _waited_enough(self, result: EpochResult) -> bool:
        """Say whether the metric, the new epoch's included, has not improved for as long as the config waits."""
        if self.config.patience is None:
            return False
        values = [epoch.score(self.config.metric) for epoch in (*self.history, result)]
        return len(values) - 1 - values.index(max(values)) >= self.config.patience
