"""The history of a trial: the results of its epochs, when its training ends, and which epoch is best."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from hpo.config import TrialConfig
from hpo.training.engine import EpochResult, Fault, final
from hpo.training.metrics import Metrics
from hpo.training.schedule_tables import lr_factors
from hpo.training.schedules import lr_factor


class History(Sequence[EpochResult]):
    """The results of a trial's completed epochs, in order, and what follows from them."""

    def __init__(self, config: TrialConfig, results: Sequence[EpochResult] = ()) -> None:
        """`results` are those of the epochs that were completed before."""
        self.config = config
        self._results = list(results)

    @overload
    def __getitem__(self, index: int) -> EpochResult: ...

    @overload
    def __getitem__(self, index: slice) -> list[EpochResult]: ...

    def __getitem__(self, index: int | slice) -> EpochResult | list[EpochResult]:
        return self._results[index]

    def __len__(self) -> int:
        return len(self._results)

    @property
    def epoch(self) -> int:
        """Number of completed epochs."""
        return len(self._results)

    @property
    def finished(self) -> bool:
        """Whether the training has ended: after the config's last epoch, or early by its patience."""
        return bool(self._results) and self._results[-1].last

    @property
    def final(self) -> EpochResult:
        """The epoch whose weights the training ends with."""
        return final(self.config, self._results)

    @property
    def improved(self) -> bool:
        """Whether the latest epoch is better than all epochs before it."""
        values = self._scores()
        return all(value < values[-1] for value in values[:-1])

    def lrs(self, steps: int) -> NDArray[np.float64]:
        """Return the learning rate at each step of the next epoch, which has `steps` steps: as `lr_at`, but rounded."""
        losses = [result.validation_loss for result in self._results]
        factors = lr_factors(self.config.schedule, self.epoch * steps, steps, self.config.epochs * steps, losses)
        return self.config.optimizer.lr * factors

    def lr_at(self, step: int, steps: int) -> float:
        """Return the learning rate at a step, counted from 0 over all epochs of `steps` steps each."""
        losses = [result.validation_loss for result in self._results]
        factor = lr_factor(self.config.schedule, step, self.config.epochs * steps, losses)
        return self.config.optimizer.lr * factor

    def add_epoch(
        self, training: tuple[float, float], validation: Metrics | None, seconds: float
    ) -> EpochResult | Fault:
        """Add the next epoch and return its result, or the fault if a loss is not finite.

        `training` is the epoch's accuracy and mean loss on its training batches. `validation` may be None where the
        training loss is not finite. `seconds` is the epoch's duration.
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
        self._results.append(result)
        if result.epoch >= self.config.epochs or self._out_of_patience():
            self._results[-1] = result = replace(result, last=True)
        return result

    def _out_of_patience(self) -> bool:
        """Return whether the metric has not improved for as many epochs as the config's patience."""
        if self.config.patience is None:
            return False
        values = self._scores()
        return len(values) - 1 - values.index(max(values)) >= self.config.patience

    def _scores(self) -> list[float]:
        return [result.score(self.config.metric) for result in self._results]
