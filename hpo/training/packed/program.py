"""A program: the members of a lane as stacked networks, and an epoch of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hpo.config import CNN, MLP, TrialConfig
from hpo.training.dataset import ResidentData, balanced_weights
from hpo.training.engine import Checkpoint
from hpo.training.history import History
from hpo.training.metrics import compute_metrics
from hpo.training.packed.bucket import Bucket
from hpo.training.packed.cnn import ConvImpl
from hpo.training.packed.masks import Dropout
from hpo.training.packed.network import sort_key, stacked
from hpo.training.packed.optimizers import Clipping, FusedStep, Moments, VectorizedStep
from hpo.training.randomness import data_order


@dataclass
class Member:
    """A trial in a lane. Out of a program its state is in `tensors`, by the names of a checkpoint."""

    key: int
    course: History
    tensors: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the best epoch, by the plain network's names, if the config wants them."""

    @property
    def config(self) -> TrialConfig:
        return self.course.config

    @property
    def network(self) -> MLP | CNN:
        assert isinstance(self.config.model, MLP | CNN)
        return self.config.model


def member_of(
    key: int, config: TrialConfig, model: nn.Module, checkpoint: Checkpoint | None, device: torch.device
) -> Member:
    """Return a trial as it comes into a lane: the solo engine's initial weights, or its checkpoint."""
    if checkpoint is None:
        initial = {f"model.{name}": value.to(device) for name, value in model.state_dict().items()}
        return Member(key, History(config), initial)
    tensors = {name: torch.from_numpy(array).to(device) for name, array in checkpoint.tensors.items()}
    best = {n.removeprefix("best."): t for n, t in tensors.items() if n.startswith("best.")}
    state = {n: t for n, t in tensors.items() if not n.startswith("best.")}
    return Member(key, History(config, checkpoint.history), state, best)


class Program:
    """Trains all its members, one epoch at a time."""

    static_shapes = False
    """Whether members may be replaced; else a program is made anew when they change."""

    def __init__(
        self, members: Sequence[Member], data: ResidentData, rows: Tensor, bucket: Bucket, way: ConvImpl = "grouped"
    ) -> None:
        """`rows` are the training rows: flat, [N, F], or images; `way` is that of convolutions."""
        first = sorted(members, key=lambda m: sort_key(m.network))
        self.members: list[Member | None] = list(first)
        """By slot."""
        self.data, self.rows, self.device = data, rows, rows.device
        batch = bucket.batch
        self.steps = len(rows) // batch
        """Per epoch."""
        configs = [member.config for member in first]
        self.network = stacked(configs, rows, data.classes, bucket, self.static_shapes, way)
        self.layout = layout = self.network.layout
        weighed = [c.class_weight == "balanced" for c in configs]
        self._class_weights = balanced_weights(data) if any(weighed) else None
        if self._class_weights is not None:
            self.network.loss.weigh(self._class_weights, weighed)
        self.moments = Moments(self.network.params, [c.optimizer for c in configs])
        whole_epoch = self.static_shapes  # a graph reads the bytes of its step by a counter
        self.dropouts = [Dropout(site, layout.networks, self.steps, whole_epoch) for site in self.network.sites]
        clipped = any(c.clip_norm is not None for c in configs)
        self.clip = Clipping(self.network.grads, [c.clip_norm for c in configs]) if clipped else None
        kind = FusedStep if self.device.type == "cpu" else VectorizedStep
        self.update = kind(self.network.params, self.network.grads, self.moments)
        self.order = torch.zeros(self.steps, layout.slots, batch, dtype=torch.int64, device=self.device)
        self.labels = torch.zeros_like(self.order)
        self.logits = torch.zeros(self.steps, *self.network.logits.shape, dtype=rows.dtype, device=self.device)
        for slot, member in enumerate(first):
            self._load(slot, member)
        self._kept: list[Tensor] = []
        self._kept_steps: list[int] = []

    def hold(self, members: Sequence[Member]) -> bool:
        """Say whether it trains these and no others, taking them where it can; if not, it has to be made anew."""
        return {m.key for m in members} == {m.key for _, m in self.held()}

    def held(self) -> list[tuple[int, Member]]:
        """Return the members, each with its slot."""
        return [(slot, member) for slot, member in enumerate(self.members) if member is not None]

    def _load(self, slot: int, member: Member) -> None:
        parts = self.network.params.views(slot) | self.network.statistics(slot)
        for name, view in parts.items():
            view.copy_(member.tensors[f"model.{name}"])
        self.moments.load(slot, member.tensors, member.course.epoch * self.steps)

    def weights(self, slot: int) -> dict[str, Tensor]:
        """Return a member's weights and buffers as the plain network's state dict, in its order; copies."""
        statistics = self.network.statistics(slot)
        found: dict[str, Tensor] = {}
        for name, part in self.network.params.views(slot).items():
            found[name] = part.clone()
            norm = name.removesuffix("bias")
            if f"{norm}running_mean" in statistics:
                found |= {n: statistics[n].clone() for n in (f"{norm}running_mean", f"{norm}running_var")}
                found[f"{norm}num_batches_tracked"] = torch.tensor(self.moments.steps[slot])
        return found

    def tensors(self, slot: int) -> dict[str, Tensor]:
        """Return a member's whole state by the names of a checkpoint; copies."""
        return {f"model.{name}": value for name, value in self.weights(slot).items()} | self.moments.save(slot)

    def train_epoch(self) -> None:
        """Train every member's next epoch; its logits are then in `logits`."""
        lrs = self.start_epoch()
        for step in range(self.steps):
            for dropout in self.dropouts:
                dropout.set_step(step)
            self.logits[step].copy_(self.network.learn(self.rows, self.order[step], self.labels[step]))
            if self.clip is not None:
                self.clip()
            self.update(lrs[step])

    def join(self) -> None:
        """Have whoever reads next wait for the epoch; until then other programs' run beside it, on a GPU."""

    def training_scores(self) -> dict[int, tuple[float, float]]:
        """Return each slot's accuracy and mean loss over the last epoch's batches."""
        found = {
            slot: compute_metrics(self.logits[:, slot].flatten(0, 1), self.labels[:, slot].flatten())
            for slot, _ in self.held()
        }
        return {slot: (each.accuracy, each.loss) for slot, each in found.items()}

    def snapshot(self) -> None:
        """Keep a copy of what an epoch changes."""
        self._kept = [tensor.clone() for tensor in self._changing()]
        self._kept_steps = list(self.moments.steps)

    def rollback(self) -> None:
        """Put back what was kept: the epoch was not."""
        for tensor, kept in zip(self._changing(), self._kept, strict=True):
            tensor.copy_(kept)
        self.moments.steps = list(self._kept_steps)

    def _changing(self) -> list[Tensor]:
        moments = (self.moments.first, self.moments.second)
        blocks = [tensor for side in (self.network.params, *moments) for tensor in side.tensors()]
        return blocks + self.network.running()

    def start_epoch(self) -> list[tuple[float, ...]]:
        """Lay out the epoch's rows and masks; return the learning rates of each step's slots."""
        batch = self.layout.batch
        rates: list[Sequence[float]] = [(0.0,) * self.steps for _ in self.members]
        for slot, member in self.held():
            course = member.course
            order = data_order(course.config.seed, course.epoch, len(self.rows), self.device)
            self.order[:, slot] = order[: self.steps * batch].view(self.steps, batch)
            for dropout in self.dropouts:
                dropout.start_epoch(slot, course.config.seed, course.epoch)
            rates[slot] = course.lrs(self.steps)
        torch.index_select(self.data.train_y, 0, self.order.flatten(), out=self.labels.view(-1))
        for dropout in self.dropouts:
            dropout.fill()
        return list(zip(*rates, strict=True))
