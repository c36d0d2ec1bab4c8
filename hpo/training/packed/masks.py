"""Dropout for all slots: the solo engine's bytes, drawn for each member's own width and put into padded tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.config import MLP
from hpo.training.packed.layers import HiddenLayer
from hpo.training.randomness import drop_threshold, dropout_bytes, steps_per_draw

HELD_BYTES = 2**22
"""About so many bytes of a layer are laid out at once."""


class _Stream:
    """The bytes of one member's dropout in one layer, in the order of an epoch's steps."""

    def __init__(self, seed: int, epoch: int, layer: int, units: int, device: torch.device) -> None:
        self._name, self._units, self._device = (seed, epoch, layer), units, device
        self._per_draw = steps_per_draw(units)
        self._first = -self._per_draw
        self._drawn = torch.empty(0)

    def take(self, first: int, count: int) -> list[Tensor]:
        """Return the bytes of `count` steps from `first` on: uint8 [some steps, units], one after another."""
        parts = []
        while count > 0:
            start = first - first % self._per_draw
            if start != self._first:
                drawn = dropout_bytes(*self._name, start, self._units, self._device)
                self._drawn, self._first = drawn.view(-1, self._units), start
            parts.append(self._drawn[first - start : first - start + count])
            first, count = first + len(parts[-1]), count - len(parts[-1])
        return parts


class Dropout:
    """The dropout of one layer, for the slots that have the layer."""

    def __init__(self, networks: Sequence[MLP], index: int, layer: HiddenLayer, steps: int, whole_epoch: bool) -> None:
        """`steps` make an epoch; with `whole_epoch` all its bytes are laid out at its start."""
        self.layer, self.index, self.steps = layer, index, steps
        self._networks = list(networks[: layer.count])
        like = layer.activated
        slots, rows, width = like.shape
        self.held = steps if whole_epoch else min(steps, max(1, HELD_BYTES // like.numel()))
        self.bytes = torch.zeros(self.held, slots, rows, width, dtype=torch.uint8, device=like.device)
        rules = [drop_threshold(network.dropout[index]) for network in self._networks]
        # At a threshold of 256 nothing is kept: no byte holds that, the factor of 0 does the same.
        thresholds = [threshold % 256 for threshold, _ in rules]
        self._threshold = torch.tensor(thresholds, dtype=torch.uint8, device=like.device).view(-1, 1, 1)
        self._scale = torch.tensor([s for _, s in rules], dtype=like.dtype, device=like.device).view(-1, 1, 1)
        self._streams: dict[int, _Stream] = {}
        layer.with_dropout()

    def start_epoch(self, seeds: Sequence[int], epochs: Sequence[int]) -> None:
        """Begin the masks of each slot's next epoch."""
        rows, device = self.layer.rows, self.bytes.device
        for slot, network in enumerate(self._networks):
            if drop_threshold(network.dropout[self.index])[0] > 0:
                number = sum(rate > 0 for rate in network.dropout[: self.index])
                units = rows * network.widths[self.index]
                self._streams[slot] = _Stream(seeds[slot], epochs[slot], number, units, device)
        self._fill(0)

    def _fill(self, first: int) -> None:
        for slot, stream in self._streams.items():
            step, width = 0, self._networks[slot].widths[self.index]
            for part in stream.take(first, min(self.held, self.steps - first)):
                self.bytes[step : step + len(part), slot, :, :width] = part.view(len(part), -1, width)
                step += len(part)

    def set_step(self, step: int) -> None:
        """Give the layer the masks of a step of the epoch; steps come in their order."""
        if step and step % self.held == 0:
            self._fill(step)
        self.set_mask(self.bytes[step % self.held])

    def set_mask(self, drawn: Tensor) -> None:
        """Give the layer the masks that bytes, [S, N, W], make."""
        mask = self.layer.mask
        assert mask is not None
        torch.mul(drawn >= self._threshold, self._scale, out=mask)


def dropouts(networks: Sequence[MLP], layers: Sequence[HiddenLayer], steps: int, whole_epoch: bool) -> list[Dropout]:
    """Return the dropout of each layer in which a member has any."""
    return [
        Dropout(networks, index, layer, steps, whole_epoch)
        for index, layer in enumerate(layers)
        if any(drop_threshold(network.dropout[index])[0] > 0 for network in networks[: layer.count])
    ]
