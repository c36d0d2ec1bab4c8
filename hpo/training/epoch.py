"""One network in training: its config, its data, and the state that changes from epoch to epoch."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hpo.config import EMA, TrialConfig
from hpo.errors import ModelError
from hpo.models import build_model, parameter_count
from hpo.training.augmentation import augmented
from hpo.training.averages import WeightAverage
from hpo.training.dataset import ResidentData, balanced_weights
from hpo.training.devices import resolve_precision
from hpo.training.engine import Checkpoint, EpochResult, Examination, Facts, Fault
from hpo.training.history import History
from hpo.training.metrics import Metrics, compute_metrics
from hpo.training.optimizers import build_optimizer, load_optimizer_tensors, optimizer_tensors
from hpo.training.randomness import data_order, generator, make_dropout_stateless
from hpo.training.torch_compat import plain_step

EVALUATION_ROWS = 1000
"""Rows per batch in evaluation."""
LOSS_CHECK_STEPS = 50
"""On a CPU, a loss that is not finite is noticed after at most this many steps, and ends the epoch."""


class EpochSteps(NamedTuple):
    """The training steps of one epoch."""

    order: Tensor
    """Training rows of each step: int64 [steps, batch]."""
    logits: Tensor | None
    """Logits of every batch: [steps * batch, classes]. None if the loss was seen not to be finite."""


class Run:
    """A network, its optimizer and its history.

    The result of `train_epoch` is a function of config, data and epoch alone.
    """

    def __init__(
        self,
        config: TrialConfig,
        data: ResidentData,
        device: torch.device,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.config, self.data, self.device = config, data, device
        self.history = History(config, checkpoint.history if checkpoint is not None else ())
        self.best: dict[str, Tensor] = {}
        """Copy of the best epoch's weights, if the config asks for best weights."""
        model = build_model(config.model, data.input_shape, data.classes, seed=config.seed)
        self.dropouts = make_dropout_stateless(model)
        self.model = model.to(device)
        if config.model.family == "cnn":
            self.model = self.model.to(memory_format=torch.channels_last)
        self.batch_size = min(config.batch_size, len(data.train_y))
        self.steps = len(data.train_y) // self.batch_size
        """Steps per epoch. An incomplete last batch is left out; each epoch has another order of rows."""
        self.average: WeightAverage | None = None
        """Averages of the weights, if the config asks for them: evaluated instead of the weights until the last epoch,
        and loaded at its end."""
        if isinstance(config.average, EMA):
            of_user = config.model.family == "python"
            self.average = WeightAverage(self.model, config.average.horizon, self.steps, replaced=of_user)
        self.inputs = data.train_x
        """The rows that an epoch trains on: the training rows, augmented if the config says so."""
        if config.augment and data.train_x.dim() != 4:
            raise ModelError("augment: inputs must be images, got a table. Remove [augment].")
        self.class_weights = balanced_weights(data) if config.class_weight == "balanced" else None
        self._current: EpochSteps | None = None
        self._started = 0.0
        self.optimizer = self.build_optimizer()
        self._plain_step = plain_step(self.optimizer)
        precision = resolve_precision(config.precision, config.model, data.input_shape, self.batch_size, device)
        if checkpoint is not None:
            self._restore(checkpoint)
            precision = "bf16" if checkpoint.precision == "bf16" else "fp32"
        self.facts = Facts(parameter_count(model), str(device), precision)

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer of the config for the model's parameters."""
        return build_optimizer(self.config.optimizer, self.model.parameters(), self.device)

    @property
    def finished(self) -> bool:
        """Whether the training has ended."""
        return self.history.finished

    @property
    def graph_failure(self) -> str:
        """Why the steps are taken one by one although a CUDA graph was wanted; empty otherwise."""
        return ""

    @property
    def final(self) -> EpochResult:
        """The epoch whose weights the training ends with."""
        return self.history.final

    def train_epoch(self) -> EpochResult | Fault:
        """Train one epoch and validate; a loss that is not finite is a fault."""
        self.launch()
        return self.collect()

    def launch(self) -> None:
        """Start the next epoch; a GPU computes it asynchronously, while other runs can be launched."""
        self._started = time.perf_counter()
        self._current = self.start_epoch(self.history.epoch)

    def collect(self) -> EpochResult | Fault:
        """Finish the epoch that was launched: wait for it, validate, and add it to the history."""
        assert self._current is not None
        training, validation = self.training_scores(self._current), None
        if math.isfinite(training[1]):
            validation = self.evaluate(self.data.validation_x, self.data.validation_y)
        result = self.history.add_epoch(training, validation, time.perf_counter() - self._started)
        if isinstance(result, EpochResult):
            self._after_epoch(last=result.last)
        return result

    def _after_epoch(self, *, last: bool) -> None:
        """Copy the weights if the latest epoch is the best and is asked for; after the last one, load what is kept."""
        if self.config.best_weights and self.history.improved:
            with self._evaluated_weights():
                self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        if not last:
            return
        if self.best or self.average is not None:
            averages = self.average.tensors if self.average is not None else {}
            self.model.load_state_dict(self.best or self.model.state_dict() | averages)
        self.average = None

    def train_only(self, epoch: int) -> tuple[float, float]:
        """Train one epoch (counted from 0) without validating; return training accuracy and loss.

        The history stays as it is. The loss is not finite if the training diverged.
        """
        return self.training_scores(self.start_epoch(epoch))

    def start_epoch(self, epoch: int) -> EpochSteps:
        """Launch the training steps of an epoch (counted from 0), without waiting for a GPU."""
        self.model.train()
        for dropout in self.dropouts:
            dropout.start_epoch(self.config.seed, epoch, self.steps, self.batch_size)
        if self.config.model.family == "python":  # whose layers may draw from torch's own generator
            torch.manual_seed(generator("cpu", "own", self.config.seed, epoch).initial_seed())
        if self.config.augment:
            if self.inputs is self.data.train_x:
                self.inputs = torch.empty_like(self.inputs)
            x, black = self.data.train_x, self.data.black
            augmented(x, self.config.augment, black, seed=self.config.seed, epoch=epoch, out=self.inputs)
        order = data_order(self.config.seed, epoch, len(self.data.train_y), self.device)
        order = order[: self.steps * self.batch_size].view(self.steps, self.batch_size)
        return EpochSteps(order, self.train_steps(order, epoch * self.steps))

    def training_scores(self, steps: EpochSteps) -> tuple[float, float]:
        """Return the training accuracy and mean loss of an epoch's steps; NaN if they diverged."""
        if steps.logits is None:
            return math.nan, math.nan
        metrics = compute_metrics(steps.logits, self.data.train_y[steps.order.flatten()])
        return metrics.accuracy, metrics.loss

    def train_steps(self, order: Tensor, first_step: int) -> Tensor | None:
        """Take a training step for each row of `order`, int64 [steps, batch]; `first_step` counts over all epochs.

        Returns the logits of every batch, [steps * batch, classes], so that the accuracy and loss of the epoch take
        one call instead of one per step. None if the loss was seen not to be finite.
        """
        logits = []
        for step, rows in enumerate(order):
            self.set_lr(first_step + step)
            self.optimizer.zero_grad()
            outputs = self.forward_backward(rows)
            self.update()
            if self.average is not None:
                self.average.update(first_step + step)
            logits.append(outputs)
            if self.device.type == "cpu" and step % LOSS_CHECK_STEPS == 0 and not outputs.isfinite().all():
                return None
        return torch.cat(logits)

    def forward_backward(self, rows: Tensor) -> Tensor:
        """Add the gradient of a batch's mean loss to the parameters' gradients; return the batch's logits, detached."""
        outputs = []
        for part in rows.chunk(self.config.accumulation):
            x, y = self.inputs.index_select(0, part), self.data.train_y.index_select(0, part)
            with self.autocast():
                logits = self.model(x)
            logits = _full(logits)
            loss = F.cross_entropy(logits, y, self.class_weights, label_smoothing=self.config.label_smoothing)
            if len(part) < len(rows):
                loss = loss * self._share(part, rows)
            loss.backward()  # type: ignore[no-untyped-call]
            outputs.append(logits.detach())
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
            self._plain_step(self.optimizer)

    def set_lr(self, step: int) -> None:
        """Set the optimizer's learning rate to that of a step, counted over all epochs."""
        lr = self.history.lr_at(step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass in the run's precision."""
        # On CUDA without autocast's cache of cast weights, which must not outlive the capture of a graph.
        enabled, cache = self.facts.precision == "bf16", self.device.type != "cuda"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled, cache_enabled=cache)

    @torch.inference_mode()
    def evaluate(self, x: Tensor, y: Tensor) -> Metrics:
        """Return the network's metrics on rows x [rows, ...] with labels y [rows], in evaluation mode."""
        return compute_metrics(self._logits(x), y)

    @torch.inference_mode()
    def probabilities(self, x: Tensor) -> NDArray[np.float32]:
        """Return the network's class probabilities for rows x [rows, ...], in evaluation mode: [rows, classes]."""
        probabilities: NDArray[np.float32] = self._logits(x).softmax(1).cpu().numpy()
        return probabilities

    def _logits(self, x: Tensor) -> Tensor:
        self.model.eval()
        with self._evaluated_weights(), self.autocast():
            return torch.cat([_full(self.model(part)) for part in torch.split(x, EVALUATION_ROWS)])

    def _evaluated_weights(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which the model has the averaged weights, if there are any."""
        return self.average.applied() if self.average is not None else contextlib.nullcontext()

    def examine(self) -> Examination:
        """Evaluate on the first training rows, as many as there are validation rows."""
        rows = len(self.data.validation_y)
        metrics = self.evaluate(self.data.train_x[:rows], self.data.train_y[:rows])
        return Examination(metrics.accuracy, metrics.loss, self.graph_failure)

    def checkpoint(self) -> Checkpoint:
        """Return the state after the latest completed epoch."""
        weights = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        best = {f"best.{name}": value for name, value in self.best.items()}
        averages = self.average.tensors if self.average is not None else {}
        average = {f"average.{name}": value for name, value in averages.items()}
        tensors = weights | best | average | optimizer_tensors(self.optimizer)
        arrays = {name: value.detach().cpu().contiguous().numpy() for name, value in tensors.items()}
        return Checkpoint(self.config, arrays, tuple(self.history), self.facts.precision)

    def _restore(self, checkpoint: Checkpoint) -> None:
        tensors = {name: torch.from_numpy(array) for name, array in checkpoint.tensors.items()}
        self.model.load_state_dict(dict(_under("model.", tensors)))
        self.best = {name: value.to(self.device) for name, value in _under("best.", tensors)}
        if self.finished:
            self.average = None
        if self.average is not None:
            self.average.load(dict(_under("average.", tensors)))
        load_optimizer_tensors(self.optimizer, {n: t for n, t in tensors.items() if n.startswith("optimizer.")})


def _under(prefix: str, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((name.removeprefix(prefix), t) for name, t in tensors.items() if name.startswith(prefix))


def _full(logits: Tensor) -> Tensor:
    """Return logits in float32 where autocast computed them in bf16: losses are computed in full precision."""
    return logits.float() if logits.dtype == torch.bfloat16 else logits
