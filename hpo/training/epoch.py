"""One epoch of one network, from top to bottom.

Its result is a function of config, data and epoch alone: the order of the rows and the dropout masks are drawn from
(seed, epoch), and the learning rate follows from the step. `hpo.training.graphed_run` replays `train_step` as a CUDA
graph.
"""

import math
import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hpo.training.augmentation import augmented
from hpo.training.devices import products_in
from hpo.training.engine import EpochResult, Fault
from hpo.training.metrics import compute_metrics
from hpo.training.randomness import data_order, generator
from hpo.training.state import TrainingState, full_precision

LOSS_CHECK_STEPS = 50
"""On a CPU, a loss that is not finite is noticed after at most this many steps, and ends the epoch."""


class EpochSteps(NamedTuple):
    """The training steps of one epoch."""

    order: Tensor
    """Training rows of each step: int64 [steps, batch]."""
    logits: Tensor | None
    """Logits of every batch: [steps * batch, classes]. None if the loss was seen not to be finite."""


class Run(TrainingState):
    """One network in training, epoch by epoch."""

    _current: EpochSteps | None = None
    _started = 0.0

    def train_epoch(self) -> EpochResult | Fault:
        """Train one epoch and validate; a loss that is not finite is a fault."""
        self.launch()
        return self.collect()

    def launch(self) -> None:
        """Start the next epoch; a GPU computes it asynchronously, while other runs can be launched."""
        self._started = time.perf_counter()
        self._current = self.start_epoch(self.history.epoch)

    def is_done(self) -> bool:
        """Return whether `collect` would not wait for the steps of the epoch that was launched."""
        return True

    def start_epoch(self, epoch: int) -> EpochSteps:
        """Launch the training steps of an epoch (counted from 0), without waiting for a GPU."""
        config, data = self.config, self.data
        self.model.train()
        for dropout in self.dropouts:
            dropout.start_epoch(config.seed, epoch, self.steps, self.batch_size)
        if config.model.family == "python":  # whose layers may draw from torch's own generator
            torch.manual_seed(generator("cpu", "own", config.seed, epoch).initial_seed())
        if config.augment:
            if self.inputs is data.train_x:
                self.inputs = torch.empty_like(self.inputs)
            augmented(data.train_x, config.augment, data.black, seed=config.seed, epoch=epoch, out=self.inputs)
        order = data_order(config.seed, epoch, len(data.train_y), self.device)
        order = order[: self.steps * self.batch_size].view(self.steps, self.batch_size)
        with products_in(self.precision):
            return EpochSteps(order, self.train_steps(order, epoch * self.steps))

    def train_steps(self, order: Tensor, first_step: int) -> Tensor | None:
        """Take a training step for each row of `order`, int64 [steps, batch]; `first_step` counts over all epochs.

        Returns the logits of every batch, [steps * batch, classes], so that the accuracy and loss of the epoch take
        one call instead of one per step. None if the loss was seen not to be finite.
        """
        logits = []
        for step, rows in enumerate(order):
            self.set_lr(first_step + step)
            outputs = self.train_step(rows)
            if self.average is not None:
                self.average.update(first_step + step)
            logits.append(outputs)
            if self.device.type == "cpu" and step % LOSS_CHECK_STEPS == 0 and not outputs.isfinite().all():
                return None
        return torch.cat(logits)

    def set_lr(self, step: int) -> None:
        """Set the optimizer's learning rate to that of a step, counted over all epochs."""
        lr = self.history.lr_at(step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def train_step(self, rows: Tensor) -> Tensor:
        """Take the optimizer's step on the mean loss of a batch, given its rows; return its logits, detached."""
        self.optimizer.zero_grad()
        outputs = []
        for part in rows.chunk(self.config.accumulation):
            x, y = self.inputs.index_select(0, part), self.data.train_y.index_select(0, part)
            with self.autocast():
                logits = self.model(x)
            logits = full_precision(logits)
            loss = F.cross_entropy(logits, y, self.class_weights, label_smoothing=self.config.label_smoothing)
            if len(part) < len(rows):
                loss = loss * self._share(part, rows)
            loss.backward()  # type: ignore[no-untyped-call]
            outputs.append(logits.detach())
        self.update()
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def _share(self, part: Tensor, rows: Tensor) -> Tensor | float:
        """Return the weight of a part's mean loss in the mean loss of its batch."""
        if self.class_weights is None:
            return len(part) / len(rows)
        of_part, of_all = (self.class_weights[self.data.train_y[some]].sum() for some in (part, rows))
        return of_part / of_all

    def update(self) -> None:
        """Take the optimizer's step on the gradients, clipped first if the config says so."""
        if self.config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        with torch.no_grad():
            self.plain_step(self.optimizer)

    def collect(self) -> EpochResult | Fault:
        """Finish the epoch that was launched: wait for it, validate, and add it to the history."""
        assert self._current is not None
        training, validation = self.training_scores(self._current), None
        if math.isfinite(training[1]):
            validation = self.evaluate(self.data.validation_x, self.data.validation_y)
        result = self.history.add_epoch(training, validation, time.perf_counter() - self._started)
        if isinstance(result, EpochResult):
            self.keep_weights(last=result.last)
        return result

    def training_scores(self, steps: EpochSteps) -> tuple[float, float]:
        """Return the training accuracy and mean loss of an epoch's steps; NaN if they diverged."""
        if steps.logits is None:
            return math.nan, math.nan
        metrics = compute_metrics(steps.logits, self.data.train_y[steps.order.flatten()])
        return metrics.accuracy, metrics.loss

    def train_only(self, epoch: int) -> tuple[float, float]:
        """Train one epoch (counted from 0) without validating; return training accuracy and loss.

        The history stays as it is. The loss is not finite if the training diverged.
        """
        return self.training_scores(self.start_epoch(epoch))
