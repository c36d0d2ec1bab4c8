"""A program: the members of a lane in stacked tensors, and an epoch of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hpo.config import MLP, TrialConfig
from hpo.training.contract import Checkpoint
from hpo.training.course import Course
from hpo.training.dataset import ResidentData, balanced_weights
from hpo.training.packed.layout import Layout, sort_key
from hpo.training.packed.masks import dropouts
from hpo.training.packed.network import Network
from hpo.training.packed.optimizers import Clipping, FusedStep, Moments, VectorizedStep
from hpo.training.randomness import data_order
from hpo.training.scoring import scores


@dataclass
class Member:
    """A trial in a lane. Out of a program its state is in `tensors`, by the names of a checkpoint."""

    key: int
    course: Course
    tensors: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the best epoch, by the plain network's names, if the config wants them."""

    @property
    def config(self) -> TrialConfig:
        return self.course.config

    @property
    def network(self) -> MLP:
        assert isinstance(self.config.model, MLP)
        return self.config.model


def member_of(
    key: int, config: TrialConfig, model: nn.Module, checkpoint: Checkpoint | None, device: torch.device
) -> Member:
    """Return a trial as it comes into a lane: the solo engine's initial weights, or its checkpoint."""
    if checkpoint is None:
        initial = {f"model.{name}": value.to(device) for name, value in model.state_dict().items()}
        return Member(key, Course(config), initial)
    tensors = {name: torch.from_numpy(array).to(device) for name, array in checkpoint.tensors.items()}
    best = {n.removeprefix("best."): t for n, t in tensors.items() if n.startswith("best.")}
    state = {n: t for n, t in tensors.items() if not n.startswith("best.")}
    return Member(key, Course(config, checkpoint.history), state, best)


class Program:
    """Trains all its members, one epoch at a time."""

    whole_epoch = False
    """Whether the dropout bytes of an epoch are laid out at once."""

    def __init__(self, members: Sequence[Member], data: ResidentData, rows: Tensor, batch: int) -> None:
        """`rows` are the training rows, flat: [N, F]."""
        self.members = sorted(members, key=lambda m: sort_key(m.network))
        self.data, self.rows, self.device = data, rows, rows.device
        networks = tuple(member.network for member in self.members)
        self.layout = layout = Layout(networks, rows.shape[1], data.classes, batch)
        self.steps = len(rows) // batch
        """Per epoch."""
        configs = [member.config for member in self.members]
        weighed = [c.class_weight == "balanced" for c in configs]
        classes = balanced_weights(data) if any(weighed) else None
        self.network = Network(layout, [c.label_smoothing for c in configs], rows.dtype, self.device)
        if classes is not None:
            self.network.weigh(classes, weighed)
        self.moments = Moments(self.network.params, [c.optimizer for c in configs])
        self.dropouts = dropouts(networks, self.network.layers, self.steps, self.whole_epoch)
        clipped = any(c.clip_norm is not None for c in configs)
        self.clip = Clipping(self.network.grads, [c.clip_norm for c in configs]) if clipped else None
        kind = FusedStep if self.device.type == "cpu" else VectorizedStep
        self.update = kind(self.network.params, self.network.grads, self.moments)
        self.x = torch.zeros(layout.slots, batch, layout.features, dtype=rows.dtype, device=self.device)
        self.order = torch.zeros(self.steps, layout.slots, batch, dtype=torch.int64, device=self.device)
        self.labels = torch.zeros_like(self.order)
        self.logits = torch.zeros(self.steps, *self.network.logits.shape, dtype=rows.dtype, device=self.device)
        for slot, member in enumerate(self.members):
            self._load(slot, member)
        self._kept: list[Tensor] = []
        self._kept_steps: list[int] = []

    def _load(self, slot: int, member: Member) -> None:
        parts = self.network.params.views(slot) | self._statistics(slot)
        for name, view in parts.items():
            view.copy_(member.tensors[f"model.{name}"])
        self.moments.load(slot, member.tensors, member.course.epoch * self.steps)

    def _statistics(self, slot: int) -> dict[str, Tensor]:
        """Return a member's running statistics, by the plain network's names."""
        network = self.layout.networks[slot]
        found: dict[str, Tensor] = {}
        if network.norm == "batch":
            for index, width in enumerate(network.widths):
                norm = self.network.layers[index].norm
                assert norm is not None
                found[f"hidden.{index}.norm.running_mean"] = norm.running_mean[slot, :width]
                found[f"hidden.{index}.norm.running_var"] = norm.running_var[slot, :width]
        return found

    def weights(self, slot: int) -> dict[str, Tensor]:
        """Return a member's weights and buffers as the plain network's state dict, in its order; copies."""
        network = self.layout.networks[slot]
        found: dict[str, Tensor] = {}
        parts = self.network.params.views(slot) | self._statistics(slot)
        for index in range(len(network.widths)):
            prefix = f"hidden.{index}."
            found |= {name: part.clone() for name, part in parts.items() if name.startswith(prefix)}
            if network.norm == "batch":
                found[f"{prefix}norm.num_batches_tracked"] = torch.tensor(self.moments.steps[slot])
        return found | {name: part.clone() for name, part in parts.items() if name.startswith("output.")}

    def tensors(self, slot: int) -> dict[str, Tensor]:
        """Return a member's whole state by the names of a checkpoint; copies."""
        return {f"model.{name}": value for name, value in self.weights(slot).items()} | self.moments.save(slot)

    def train_epoch(self) -> None:
        """Train every member's next epoch; its logits are then in `logits`."""
        lrs = self.start_epoch()
        for step in range(self.steps):
            for dropout in self.dropouts:
                dropout.set_step(step)
            self.learn(self.order[step], self.labels[step], self.logits[step])
            if self.clip is not None:
                self.clip()
            self.update(lrs[step])

    def join(self) -> None:
        """Have whoever reads next wait for the epoch; until then other programs' run beside it, on a GPU."""

    def training_scores(self) -> list[tuple[float, float]]:
        """Return each slot's accuracy and mean loss over the last epoch's batches."""
        found = [
            scores(self.logits[:, slot].flatten(0, 1), self.labels[:, slot].flatten())
            for slot in range(self.layout.slots)
        ]
        return [(each.accuracy, each.loss) for each in found]

    def remember(self) -> None:
        """Keep a copy of what an epoch changes."""
        self._kept = [tensor.clone() for tensor in self._changing()]
        self._kept_steps = list(self.moments.steps)

    def recall(self) -> None:
        """Put back what was kept: the epoch was not."""
        for tensor, kept in zip(self._changing(), self._kept, strict=True):
            tensor.copy_(kept)
        self.moments.steps = list(self._kept_steps)

    def _changing(self) -> list[Tensor]:
        norms = [layer.norm for layer in self.network.layers if layer.norm is not None]
        return [
            *self.network.params.tensors(),
            *self.moments.first.tensors(),
            *self.moments.second.tensors(),
            *(tensor for norm in norms for tensor in (norm.running_mean, norm.running_var)),
        ]

    def start_epoch(self) -> list[tuple[float, ...]]:
        """Lay out the epoch's rows and masks; return the learning rates of each step's slots."""
        courses = [member.course for member in self.members]
        batch = self.layout.batch
        for slot, course in enumerate(courses):
            order = data_order(course.config.seed, course.epoch, len(self.rows), self.device)
            self.order[:, slot] = order[: self.steps * batch].view(self.steps, batch)
        torch.index_select(self.data.train_y, 0, self.order.flatten(), out=self.labels.view(-1))
        for dropout in self.dropouts:
            dropout.start_epoch([c.config.seed for c in courses], [c.epoch for c in courses])
        return list(zip(*(course.lrs(self.steps) for course in courses), strict=True))

    def learn(self, rows: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Leave the gradients on a batch of each member, and its logits."""
        torch.index_select(self.rows, 0, rows.flatten(), out=self.x.view(-1, self.layout.features))
        logits.copy_(self.network.learn(self.x, labels))
