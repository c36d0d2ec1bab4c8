"""A trial's course: what its epochs gave, when it ends, which epoch was best. The same for every engine."""

import math
from collections.abc import Sequence

from hpo.config import TrialConfig
from hpo.training.contract import EpochResult, Fault, final_accuracy
from hpo.training.schedules import lr_factor


class Course:
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
    def accuracy(self) -> float:
        """The validation accuracy of the weights that the training ends with."""
        return final_accuracy(self.config, self.history)

    @property
    def improved(self) -> bool:
        """Whether the latest epoch is better than all before it."""
        latest = self.history[-1].validation_accuracy
        return all(result.validation_accuracy < latest for result in self.history[:-1])

    def lrs(self, steps: int) -> list[float]:
        """Return the learning rate at each step of the next epoch, `steps` to an epoch."""
        return [self.lr_at(self.epoch * steps + step, steps) for step in range(steps)]

    def lr_at(self, step: int, steps: int) -> float:
        """Return the learning rate at a step, counted over all epochs of `steps` steps."""
        losses = [result.validation_loss for result in self.history]
        factor = lr_factor(self.config.schedule, step, self.config.epochs * steps, losses)
        return self.config.optimizer.lr * factor

    def take(
        self, training: tuple[float, float], validation: tuple[float, float], seconds: float
    ) -> EpochResult | Fault:
        """Add an epoch, of which accuracies and losses are known; a loss that is not finite is a fault."""
        (train_accuracy, train_loss), (accuracy, loss) = training, validation
        if not (math.isfinite(train_loss) and math.isfinite(loss)):
            return Fault("diverged", f"the loss was not finite in epoch {self.epoch + 1}")
        last = self.epoch + 1 >= self.config.epochs or self._waited_enough(accuracy)
        result = EpochResult(self.epoch + 1, accuracy, loss, train_accuracy, train_loss, seconds, last)
        self.history.append(result)
        return result

    def _waited_enough(self, accuracy: float) -> bool:
        """Say whether the accuracy, the new epoch's included, has not improved for as long as the config waits."""
        if self.config.patience is None:
            return False
        values = [*(result.validation_accuracy for result in self.history), accuracy]
        return len(values) - 1 - values.index(max(values)) >= self.config.patience
