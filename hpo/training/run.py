"""One network in training: a config, its data, and everything that changes from epoch to epoch."""

import math
import time
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hpo.config import TrialConfig
from hpo.errors import ModelError
from hpo.models import build_model, parameter_count
from hpo.training.augmentation import augmented
from hpo.training.dataset import ResidentData, balanced_weights
from hpo.training.devices import resolve_precision
from hpo.training.engine import Checkpoint, EpochResult, Examination, Facts, Fault
from hpo.training.history import History
from hpo.training.metrics import Metrics, compute_metrics
from hpo.training.optimizers import build_optimizer, load_optimizer_tensors, optimizer_tensors
from hpo.training.randomness import data_order, generator, make_dropout_stateless
from hpo.training.torch_compat import plain_step

EVALUATION_ROWS = 1000
"""Rows per batch where nothing is learned."""
LOSS_CHECK_STEPS = 50
"""On a CPU a loss that is not finite ends the epoch after at most this many steps."""


Begun = tuple[Tensor, Tensor | None]
"""The rows of each step, int64 [steps, batch], and the logits; None if the loss was seen not to be finite."""


class Run:
    """A network, its optimizer and its history; `train_epoch` is a function of config, data and epoch."""

    def __init__(
        self,
        config: TrialConfig,
        data: ResidentData,
        device: torch.device,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.config, self.data, self.device = config, data, device
        self.course = History(config, checkpoint.history if checkpoint is not None else ())
        self.best: dict[str, Tensor] = {}
        """Weights of the best epoch, if the config wants them."""
        model = build_model(config.model, data.input_shape, data.classes, seed=config.seed)
        self.dropouts = make_dropout_stateless(model)
        self.model = model.to(device)
        if config.model.family == "cnn":
            self.model = self.model.to(memory_format=torch.channels_last)
        self.batch_size = min(config.batch_size, len(data.train_y))
        self.steps = len(data.train_y) // self.batch_size
        """Steps per epoch; the rows of a last, short batch wait for another epoch's order."""
        self.inputs = data.train_x
        """What an epoch trains on: the training rows, or what augmentation makes of them."""
        if config.augment and data.train_x.dim() != 4:
            raise ModelError("augment: inputs must be images, got a table. Remove [augment].")
        self.class_weights = balanced_weights(data) if config.class_weight == "balanced" else None
        self._begun: Begun | None = None
        self._started = 0.0
        self.optimizer = self.build_optimizer()
        self._plain_step = plain_step(self.optimizer)
        precision = resolve_precision(config.precision, config.model, data.input_shape, self.batch_size, device)
        if checkpoint is not None:
            self._restore(checkpoint)
            precision = "bf16" if checkpoint.precision == "bf16" else "fp32"
        self.facts = Facts(parameter_count(model), str(device), precision)

    def build_optimizer(self) -> torch.optim.Optimizer:
        return build_optimizer(self.config.optimizer, self.model.parameters(), self.device)

    @property
    def history(self) -> list[EpochResult]:
        """What the epochs so far gave."""
        return self.course.history

    @property
    def finished(self) -> bool:
        """Whether there is no further epoch."""
        return self.course.finished

    @property
    def final(self) -> EpochResult:
        """The epoch whose weights the training ends with."""
        return self.course.final

    def train_epoch(self) -> EpochResult | Fault:
        """Train one epoch and validate; a loss that is not finite is a fault."""
        self.launch()
        return self.collect()

    def launch(self) -> None:
        """Begin an epoch; a GPU works on it while others are begun."""
        self._started = time.perf_counter()
        self._begun = self.begin(self.course.epoch)

    def collect(self) -> EpochResult | Fault:
        """End the epoch that was begun."""
        assert self._begun is not None
        trained, validated = self.figures(self._begun), None
        if math.isfinite(trained[1]):
            validated = self.evaluate(self.data.validation_x, self.data.validation_y)
        result = self.course.take(trained, validated, time.perf_counter() - self._started)
        if isinstance(result, EpochResult) and self.config.best_weights:
            self._keep_best(result.last)
        return result

    def _keep_best(self, last: bool) -> None:
        """Remember the weights of the best epoch; after the last one, take them."""
        if self.course.improved:
            self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        if last:
            self.model.load_state_dict(self.best)

    def learn(self, epoch: int) -> tuple[float, float]:
        """Train one epoch (from 0); return training accuracy and loss, not finite if it diverged."""
        return self.figures(self.begin(epoch))

    def begin(self, epoch: int) -> Begun:
        """Take the steps of an epoch (from 0); nothing waits for a GPU."""
        self.model.train()
        for dropout in self.dropouts:
            dropout.start_epoch(self.config.seed, epoch, self.steps, self.batch_size)
        if self.config.model.family == "python":  # whose layers may draw from torch's own generator
            torch.manual_seed(generator("cpu", "own", self.config.seed, epoch).initial_seed())
        if self.config.augment:
            if self.inputs is self.data.train_x:
                self.inputs = torch.empty_like(self.inputs)
            x, black = self.data.train_x, self.data.black
            augmented(x, self.config.augment, black, self.config.seed, epoch, out=self.inputs)
        order = data_order(self.config.seed, epoch, len(self.data.train_y), self.device)
        order = order[: self.steps * self.batch_size].view(self.steps, self.batch_size)
        return order, self.train_steps(order, epoch * self.steps)

    def figures(self, begun: Begun) -> tuple[float, float]:
        """Return the training accuracy and loss of the steps taken, not finite if they diverged."""
        order, logits = begun
        if logits is None:
            return math.nan, math.nan
        found = compute_metrics(logits, self.data.train_y[order.flatten()])
        return found.accuracy, found.loss

    def train_steps(self, order: Tensor, first_step: int) -> Tensor | None:
        """Take a step for each row of `order`, int64 [steps, batch].

        Returns the logits of every batch, [steps * batch, classes]: accuracy and loss of the epoch are then
        one call instead of one per step. None if the loss was seen not to be finite.
        """
        logits = []
        for step, rows in enumerate(order):
            self.set_lr(first_step + step)
            self.optimizer.zero_grad()
            outputs = self.forward_backward(rows)
            self.update()
            logits.append(outputs)
            if self.device.type == "cpu" and step % LOSS_CHECK_STEPS == 0 and not outputs.isfinite().all():
                return None
        return torch.cat(logits)

    def forward_backward(self, rows: Tensor) -> Tensor:
        """Add the gradient of a batch's mean loss to the parameters; return its logits, detached."""
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
        """Return what a part's mean loss weighs in the mean of its batch."""
        if self.class_weights is None:
            return len(part) / len(rows)
        of_part, of_all = (self.class_weights[self.data.train_y[some]].sum() for some in (part, rows))
        return of_part / of_all

    def update(self) -> None:
        """Take the optimizer's step on the gradient, clipped if the config says so."""
        if self.config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        with torch.no_grad():
            self._plain_step(self.optimizer)

    def set_lr(self, step: int) -> None:
        lr = self.course.lr_at(step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def autocast(self) -> torch.autocast:
        # Without autocast's cache of cast weights, which must not outlive the capture of a graph.
        enabled, cache = self.facts.precision == "bf16", self.device.type != "cuda"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled, cache_enabled=cache)

    @torch.inference_mode()
    def evaluate(self, x: Tensor, y: Tensor) -> Metrics:
        """Return what the network is worth on rows, without dropout, on running batch statistics."""
        self.model.eval()
        with self.autocast():
            logits = torch.cat([_full(self.model(part)) for part in torch.split(x, EVALUATION_ROWS)])
        return compute_metrics(logits, y)

    @torch.inference_mode()
    def probabilities(self, x: Tensor) -> NDArray[np.float32]:
        """Return the network's probabilities: [rows, classes]."""
        self.model.eval()
        with self.autocast():
            logits = torch.cat([_full(self.model(part)) for part in torch.split(x, EVALUATION_ROWS)])
        found: NDArray[np.float32] = logits.softmax(1).cpu().numpy()
        return found

    def examine(self) -> Examination:
        """Evaluate on as many training rows as there are validation rows, the first ones."""
        rows = len(self.data.validation_y)
        found = self.evaluate(self.data.train_x[:rows], self.data.train_y[:rows])
        return Examination(found.accuracy, found.loss)

    def checkpoint(self) -> Checkpoint:
        """Return the state after the last epoch."""
        weights = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        best = {f"best.{name}": value for name, value in self.best.items()}
        tensors = weights | best | optimizer_tensors(self.optimizer)
        arrays = {name: value.detach().cpu().contiguous().numpy() for name, value in tensors.items()}
        return Checkpoint(self.config, arrays, tuple(self.history), self.facts.precision)

    def _restore(self, checkpoint: Checkpoint) -> None:
        tensors = {name: torch.from_numpy(array) for name, array in checkpoint.tensors.items()}
        self.model.load_state_dict(dict(_under("model.", tensors)))
        self.best = {name: value.to(self.device) for name, value in _under("best.", tensors)}
        load_optimizer_tensors(self.optimizer, {n: t for n, t in tensors.items() if n.startswith("optimizer.")})


def _under(prefix: str, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((name.removeprefix(prefix), t) for name, t in tensors.items() if name.startswith(prefix))


def _full(logits: Tensor) -> Tensor:
    """Return what autocast gave in the precision that losses are taken in."""
    return logits.float() if logits.dtype == torch.bfloat16 else logits
