"""Averaged weights of all slots, each with its own horizon; slots without an average keep their own weights."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from hpo.config import EMA, Average
from hpo.training.averages import ema_weights
from hpo.training.packed.compute.network import PackedNetwork
from hpo.training.packed.layout.blocks import Blocks
from hpo.training.torch_compat import lerp

SHARE = 0.5
"""Share of slots with an average from which on those of all slots are computed at once, which takes fewer calls."""


class Averages:
    """Exponential moving averages of the parameters and running statistics of the slots that ask for one."""

    def __init__(self, network: PackedNetwork, configs: Sequence[Average], steps: int) -> None:
        """`configs` are those of the slots, `steps` the steps of an epoch."""
        like = network.params.vectors
        self.network, self.steps = network, steps
        self.params = Blocks(network.layout, like.dtype, like.device)
        self.running = [torch.zeros_like(tensor) for tensor in network.running()]
        """Averages of the network's running statistics."""
        self.horizons: list[float | None] = [None] * len(configs)
        """Horizon of each slot's average in epochs; None for a slot without one."""
        self.table = torch.zeros(steps, len(configs), dtype=like.dtype, device=like.device)
        """How far the average of each slot moves in each step of the epoch, 0 without one: [steps, S]."""
        self._rows = np.zeros((steps, len(configs)))
        self._has = torch.zeros(len(configs), dtype=torch.bool, device=like.device)
        for slot, config in enumerate(configs):
            self.replace(slot, config)
        self._slots = [
            (self._pieces(self.params, self.running, slot), self._pieces(network.params, network.running(), slot))
            for slot in range(len(configs))
        ]
        """Averages and current values of each slot."""
        self._now = torch.zeros_like(self.table[0])
        """A row of the table."""
        self._tensors = [
            (average, value, self._now[start:stop].view(_shape(value)), self._has[start:stop].view(_shape(value)))
            for average, value, start, stop in self._pairs()
        ]
        """Averages and current values of all slots that have them, [S, ...], and for each slot its entry of the row and
        whether it has an average, [S, 1, ...]."""

    @staticmethod
    def _pieces(params: Blocks, running: Sequence[Tensor], slot: int) -> list[Tensor]:
        return [*params.pieces(slot), *(tensor[slot] for tensor in running if slot < len(tensor))]

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor, int, int]]:
        """Yield each tensor of averages, that of current values, and its first slot and last slot + 1."""
        for (value, start, stop), average in zip(self.network.params.blocks(), self.params.tensors(), strict=True):
            yield average, value, start, stop
        for value, average in zip(self.network.running(), self.running, strict=True):
            yield average, value, 0, len(value)

    def tensors(self) -> list[Tensor]:
        """Return all averages."""
        return [*self.params.tensors(), *self.running]

    def views(self, slot: int) -> dict[str, Tensor]:
        """Return views of a slot's averages by the plain network's names; none for a slot without an average."""
        if self.horizons[slot] is None:
            return {}
        return self.params.views(slot) | self.network.statistics(slot, self.running)

    def replace(self, slot: int, config: Average | None) -> None:
        """Give a slot the average of another member; None for an empty slot."""
        self.horizons[slot] = config.horizon if isinstance(config, EMA) else None
        self._has[slot] = isinstance(config, EMA)
        self.params.clear(slot)
        for tensor in self.running:
            tensor[slot : slot + 1] = 0.0

    def load(self, slot: int, tensors: Mapping[str, Tensor]) -> None:
        """Restore a slot's averages from the tensors of a checkpoint."""
        for name, view in self.views(slot).items():
            view.copy_(tensors[f"average.{name}"])

    def save(self, slot: int) -> dict[str, Tensor]:
        """Return copies of a slot's averages by the names of a checkpoint."""
        return {f"average.{name}": view.clone() for name, view in self.views(slot).items()}

    def start_epoch(self, done: Sequence[int]) -> None:
        """Compute the table of the next epoch, before which each slot has taken `done` steps."""
        horizons = np.array([horizon or 0.0 for horizon in self.horizons])
        self._rows = ema_weights(horizons, np.array(done), self.steps)
        self.table.copy_(torch.from_numpy(self._rows))

    def update(self, step: int) -> None:
        """Add the weights after a step of the epoch to the averages."""
        averaged = [slot for slot, horizon in enumerate(self.horizons) if horizon is not None]
        if len(averaged) > SHARE * len(self.horizons):
            self.apply(self.table[step])
            return
        for slot in averaged:
            lerp(*self._slots[slot], float(self._rows[step, slot]))

    def apply(self, row: Tensor) -> None:
        """Add the weights after a step to the averages of all slots at once, by its row of the table: [S]."""
        self._now.copy_(row)
        for average, value, weight, _ in self._tensors:
            average.lerp_(value, weight)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the averages of the slots that have one, and its own weights again at the end."""
        kept = [value.clone() for _, value, _, _ in self._tensors]
        try:
            for average, value, _, has in self._tensors:
                value.copy_(torch.where(has, average, value))
            yield
        finally:
            for (_, value, _, _), copy in zip(self._tensors, kept, strict=True):
                value.copy_(copy)


def _shape(of: Tensor) -> tuple[int, ...]:
    """Return the shape in which a number per slot is broadcast over a tensor of slots, [S, ...]: (S, 1, ...)."""
    return (len(of), *[1] * (of.dim() - 1))
