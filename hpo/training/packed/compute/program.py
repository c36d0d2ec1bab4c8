"""A program: the members of a lane as stacked networks, and an epoch of all of them."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpo.config import CNN, EMA, MLP, TrialConfig
from hpo.training.checkpoint_fit import check_fit
from hpo.training.dataset import ResidentData, balanced_weights
from hpo.training.devices import products_in
from hpo.training.engine import Checkpoint
from hpo.training.history import History
from hpo.training.metrics import confusions, metrics_of
from hpo.training.packed.compute.averages import Averages
from hpo.training.packed.compute.cnn import ConvImpl
from hpo.training.packed.compute.masks import Dropout
from hpo.training.packed.compute.network import sort_key, stacked
from hpo.training.packed.compute.optimizers import Clipping, FusedStep, Moments, Step, VectorizedStep
from hpo.training.packed.layout.bucket import Bucket
from hpo.training.randomness import data_order


@dataclass
class Member:
    """A trial in a lane. Outside a program its state is in `tensors`, by the names of a checkpoint."""

    key: int
    history: History
    tensors: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the best epoch by the plain network's names, if the config asks for best weights."""

    @property
    def config(self) -> TrialConfig:
        """The trial's config."""
        return self.history.config

    @property
    def network(self) -> MLP | CNN:
        """The trial's network, of a family that can be packed."""
        assert isinstance(self.config.model, MLP | CNN)
        return self.config.model


def member_of(
    key: int, config: TrialConfig, model: nn.Module, checkpoint: Checkpoint | None, device: torch.device
) -> Member:
    """Return a trial for a lane, with the weights of a freshly built `model`, or the state of its checkpoint.

    Raises: ValueError for a checkpoint that does not fit.
    """
    if checkpoint is None:
        weights = {name: value.to(device) for name, value in model.state_dict().items()}
        initial = {f"model.{name}": value for name, value in weights.items()}
        if isinstance(config.average, EMA):
            initial |= {f"average.{name}": value for name, value in weights.items() if value.is_floating_point()}
        return Member(key, History(config), initial)
    check_fit(checkpoint, model)
    tensors = {name: torch.from_numpy(array).to(device) for name, array in checkpoint.tensors.items()}
    best = {n.removeprefix("best."): t for n, t in tensors.items() if n.startswith("best.")}
    state = {n: t for n, t in tensors.items() if not n.startswith("best.")}
    return Member(key, History(config, checkpoint.history), state, best)


class Program:
    """Trains the members of a lane together, one epoch at a time."""

    static_shapes = False
    """Whether members can be replaced; otherwise a new program is made when they change."""

    def __init__(
        self,
        members: Sequence[Member],
        data: ResidentData,
        rows: Tensor,
        bucket: Bucket,
        *,
        conv_impl: ConvImpl = "grouped",
        spare: Sequence[TrialConfig] = (),
    ) -> None:
        """`rows` are the training rows of `data`: flat, [N, F], or images, [N, C, H, W].

        For each config of `spare` there is a slot that could train it, without a member.
        """
        held = [*((member.config, member) for member in members), *((config, None) for config in spare)]
        held.sort(key=lambda each: sort_key(each[0].model, static_shapes=self.static_shapes))
        self.members: list[Member | None] = [member for _, member in held]
        """Member of each slot; None where it is empty."""
        self.data, self.rows, self.device = data, rows, rows.device
        batch, self.precision = bucket.batch, bucket.precision
        self.steps = len(rows) // batch
        """Steps per epoch."""
        configs = [config for config, _ in held]
        self.network = stacked(
            configs, rows, data.classes, bucket, static_shapes=self.static_shapes, conv_impl=conv_impl
        )
        self.layout = layout = self.network.layout
        balanced = [c.class_weight == "balanced" for c in configs]
        self._class_weights = balanced_weights(data) if any(balanced) else None
        if self._class_weights is not None:
            self.network.loss.set_class_weights(self._class_weights, balanced)
        self.moments = Moments(self.network.params, [c.optimizer for c in configs])
        self.dropouts = self._new_dropouts()
        averaged = any(isinstance(c.average, EMA) for c in configs)
        self.averages = Averages(self.network, [c.average for c in configs], self.steps) if averaged else None
        clipped = any(c.clip_norm is not None for c in configs)
        self.clip = Clipping(self.network.grads, [c.clip_norm for c in configs]) if clipped else None
        self.update = self._optimizer_step()
        self.batches = torch.zeros(self.steps, 2, layout.slots, batch, dtype=torch.int64, device=self.device)
        """For each step and slot the rows of the batch and their labels."""
        self.order, self.labels = self.batches.unbind(1)
        self.logits = torch.zeros(self.steps, *self.network.logits.shape, dtype=rows.dtype, device=self.device)
        for slot, member in self.held():
            self._load(slot, member)
        self._snapshot: list[Tensor] = []
        self._snapshot_steps: list[int] = []

    def _new_dropouts(self) -> list[Dropout]:
        return [Dropout(s, self.layout.networks, self.steps, whole_epoch=False) for s in self.network.sites]

    def _optimizer_step(self) -> Step:
        kind = FusedStep if self.device.type == "cpu" else VectorizedStep
        return kind(self.network.params, self.network.grads, self.moments)

    def set_members(self, members: Sequence[Member]) -> bool:
        """Make these the members and return True, if this program can; otherwise a new one has to be made."""
        return {m.key for m in members} == {m.key for _, m in self.held()}

    def held(self) -> list[tuple[int, Member]]:
        """Return slot and member of each slot that is not empty."""
        return [(slot, member) for slot, member in enumerate(self.members) if member is not None]

    def _load(self, slot: int, member: Member) -> None:
        parts = self.network.params.views(slot) | self.network.statistics(slot)
        for name, view in parts.items():
            view.copy_(member.tensors[f"model.{name}"])
        self.moments.load(slot, member.tensors, member.history.epoch * self.steps)
        if self.averages is not None:
            self.averages.load(slot, member.tensors)

    def weights(self, slot: int) -> dict[str, Tensor]:
        """Return copies of a member's weights and buffers, named and ordered as in the plain network's state dict."""
        statistics = self.network.statistics(slot)
        weights: dict[str, Tensor] = {}
        for name, part in self.network.params.views(slot).items():
            weights[name] = part.clone()
            norm = name.removesuffix("bias")
            if f"{norm}running_mean" in statistics:
                weights |= {n: statistics[n].clone() for n in (f"{norm}running_mean", f"{norm}running_var")}
                weights[f"{norm}num_batches_tracked"] = torch.tensor(self.moments.steps[slot])
        return weights

    def evaluated_weights(self, slot: int) -> dict[str, Tensor]:
        """Return what `weights` returns, but for averages where the member has them."""
        averages = self.averages.views(slot) if self.averages is not None else {}
        return self.weights(slot) | {name: view.clone() for name, view in averages.items()}

    def tensors(self, slot: int) -> dict[str, Tensor]:
        """Return copies of a member's whole state by the names of a checkpoint."""
        weights = {f"model.{name}": value for name, value in self.weights(slot).items()}
        averages = self.averages.save(slot) if self.averages is not None else {}
        return weights | averages | self.moments.save(slot)

    def evaluate(self, x: Tensor) -> Tensor:
        """Return every member's logits for the same rows, by its averages if it has them: [S, rows, classes]."""
        averaged = self.averages.applied() if self.averages is not None else contextlib.nullcontext()
        with averaged, products_in(self.precision):
            return self.network.evaluate(x)

    def train_epoch(self) -> None:
        """Train the next epoch of every member; the logits of its batches are then in `logits`."""
        lrs = self.start_epoch().tolist()
        with products_in(self.precision):
            for step in range(self.steps):
                for dropout in self.dropouts:
                    dropout.set_step(step)
                self.logits[step].copy_(self.network.compute_gradients(self.rows, self.order[step], self.labels[step]))
                if self.clip is not None:
                    self.clip()
                self.update(lrs[step])
                if self.averages is not None:
                    self.averages.update(step)

    def is_done(self) -> bool:
        """Return whether the epoch is computed."""
        return True

    def join(self) -> None:
        """Make the current CUDA stream wait for the epoch; until then, other programs compute at the same time."""

    def training_confusions(self) -> Tensor:
        """Return the confusions of each slot over the batches of the latest epoch, as `hpo.training.metrics`."""
        logits, labels = self.logits.transpose(1, 2).flatten(0, 1), self.labels.transpose(1, 2).flatten(0, 1)
        return confusions(logits, labels)

    def training_scores(self) -> dict[int, tuple[float, float]]:
        """Return accuracy and mean loss of each slot over the batches of the latest epoch."""
        [metrics] = metrics_of([self.training_confusions()])
        return {slot: (metrics[slot].accuracy, metrics[slot].loss) for slot, _ in self.held()}

    def snapshot(self) -> None:
        """Copy everything that an epoch changes, for `rollback`."""
        self._snapshot = [tensor.clone() for tensor in self.changing()]
        self._snapshot_steps = list(self.moments.steps)

    def rollback(self) -> None:
        """Restore the state of the latest `snapshot`, as if the epoch had not been trained."""
        for tensor, copy in zip(self.changing(), self._snapshot, strict=True):
            tensor.copy_(copy)
        self.moments.steps = list(self._snapshot_steps)

    @property
    def graph_failure(self) -> str:
        """Why the steps are taken one by one although a CUDA graph was wanted; empty otherwise."""
        return ""

    def changing(self) -> list[Tensor]:
        """Return what an epoch changes: parameters, moments, running statistics and averages."""
        moments = (self.moments.first, self.moments.second)
        blocks = [tensor for side in (self.network.params, *moments) for tensor in side.tensors()]
        averages = self.averages.tensors() if self.averages is not None else []
        return blocks + self.network.running() + averages

    def start_epoch(self) -> NDArray[np.float64]:
        """Write rows, masks and averaging weights of the next epoch; return the learning rates: [steps, S]."""
        batch = self.layout.batch
        rates = np.zeros((self.steps, len(self.members)))
        for slot, member in self.held():
            seed, epoch = member.config.seed, member.history.epoch
            order = data_order(seed, epoch, len(self.rows), self.device)
            self.order[:, slot] = order[: self.steps * batch].view(self.steps, batch)
            for dropout in self.dropouts:
                dropout.start_epoch(slot, seed, epoch)
            rates[:, slot] = member.history.lrs(self.steps)
        if self.averages is not None:
            self.averages.start_epoch(self.moments.steps)
        self.labels.copy_(self.data.train_y.index_select(0, self.order.flatten()).view_as(self.labels))
        for dropout in self.dropouts:
            dropout.fill()
        return rates
