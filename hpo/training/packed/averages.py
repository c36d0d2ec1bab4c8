"""Averaged weights of all slots, each with its own horizon; slots without an average keep their own weights."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from hpo.config import EMA, Average
from hpo.training.averages import ema_weight
from hpo.training.packed.blocks import Blocks
from hpo.training.packed.network import PackedNetwork
from hpo.training.torch_compat import lerp


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
        self._has = torch.zeros(len(configs), dtype=torch.bool, device=like.device)
        for slot, config in enumerate(configs):
            self.replace(slot, config)
        pairs = (
            (self._pieces(self.params, self.running, s), self._pieces(network.params, network.running(), s))
            for s in range(len(configs))
        )
        self._slots = list(pairs)
        """Averages and current values of each slot."""

    @staticmethod
    def _pieces(params: Blocks, running: Sequence[Tensor], slot: int) -> list[Tensor]:
        return [*params.pieces(slot), *(tensor[slot] for tensor in running if slot < len(tensor))]

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

    def weights(self, done: Sequence[int]) -> list[float]:
        """Return how far each slot's average moves after its next step, if it has `done` so many; 0 without one."""
        horizons = zip(self.horizons, done, strict=True)
        return [0.0 if horizon is None else ema_weight(horizon, step, self.steps) for horizon, step in horizons]

    def update(self, done: Sequence[int]) -> None:
        """Add the weights after a step to the averages, slot by slot; before it, the slots had `done` so many."""
        for (averages, values), weight in zip(self._slots, self.weights(done), strict=True):
            if weight:
                lerp(averages, values, weight)

    def apply(self, weights: Tensor) -> None:
        """Add the weights after a step to the averages of all slots at once, by what `weights` returns: [S]."""
        for average, value, start, stop in self._tensors():
            average.lerp_(value, _for_each_slot(weights[start:stop], average))

    def _tensors(self) -> Iterator[tuple[Tensor, Tensor, int, int]]:
        """Yield each tensor of averages, that of current values, and its first slot and last slot + 1."""
        for (value, start, stop), average in zip(self.network.params.blocks(), self.params.tensors(), strict=True):
            yield average, value, start, stop
        for value, average in zip(self.network.running(), self.running, strict=True):
            yield average, value, 0, len(value)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the averages of the slots that have one, and its own weights again at the end."""
        kept = [(value, value.clone()) for _, value, _, _ in self._tensors()]
        try:
            for average, value, start, stop in self._tensors():
                value.copy_(torch.where(_for_each_slot(self._has[start:stop], value), average, value))
            yield
        finally:
            for value, copy in kept:
                value.copy_(copy)


def _for_each_slot(values: Tensor, like: Tensor) -> Tensor:
    """Return a value per slot, [S], in a shape that is broadcast over a tensor of all slots, [S, ...]."""
    return values.view(-1, *[1] * (like.dim() - 1))
