"""The state of one network in training, evaluated, and kept in checkpoints; `hpo.training.epoch` trains it."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpo.config import EMA, TrialConfig
from hpo.errors import ModelError
from hpo.models import build_model, parameter_count
from hpo.training.averages import WeightAverage
from hpo.training.checkpoint_fit import check_fit
from hpo.training.dataset import ResidentData, balanced_weights
from hpo.training.devices import products_in, resolve_precision, resumed_precision
from hpo.training.engine import Checkpoint, EpochResult, Examination, Facts
from hpo.training.history import History
from hpo.training.metrics import Metrics, compute_metrics
from hpo.training.optimizers import build_optimizer, load_optimizer_tensors, optimizer_tensors
from hpo.training.randomness import make_dropout_stateless
from hpo.training.sampling_error import sampling_error
from hpo.training.torch_compat import plain_step

EVALUATION_ROWS = 1000
"""Rows per batch in evaluation."""


class TrainingState:
    """A network, its config, its data, and what changes from epoch to epoch: weights, optimizer, history."""

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
        self.optimizer = self.build_optimizer()
        self.plain_step = plain_step(self.optimizer)
        precision = resolve_precision(config.precision, config.model, data.input_shape, self.batch_size, device)
        if checkpoint is not None:
            check_fit(checkpoint, model)
            self._restore(checkpoint)
            precision = resumed_precision(checkpoint.precision, device)
        self.precision = precision
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

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass in the run's precision."""
        # On CUDA without autocast's cache of cast weights, which must not outlive the capture of a graph.
        enabled, cache = self.precision == "bf16", self.device.type != "cuda"
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
        with self._evaluated_weights(), self.autocast(), products_in(self.precision):
            return torch.cat([full_precision(self.model(part)) for part in torch.split(x, EVALUATION_ROWS)])

    def _evaluated_weights(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which the model has the averaged weights, if there are any."""
        return self.average.applied() if self.average is not None else contextlib.nullcontext()

    def examine(self) -> Examination:
        """Evaluate on the first training rows, as many as there are validation rows, and how sure the score is."""
        rows = len(self.data.validation_y)
        metrics = self.evaluate(self.data.train_x[:rows], self.data.train_y[:rows])
        error = None
        if self.config.metric != "accuracy":
            probabilities = self.probabilities(self.data.validation_x)
            error = sampling_error(self.config.metric, probabilities, self.data.validation_y.cpu().numpy())
        return Examination(metrics.accuracy, metrics.loss, error, self.graph_failure)

    def keep_weights(self, *, last: bool) -> None:
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


def full_precision(logits: Tensor) -> Tensor:
    """Return logits in float32 where autocast computed them in bf16: losses are computed in full precision."""
    return logits.float() if logits.dtype == torch.bfloat16 else logits
