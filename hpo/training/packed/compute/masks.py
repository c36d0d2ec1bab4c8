"""Dropout of all slots: the same random bytes as in the solo engine, drawn for each member and written into padded
tensors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hpo.config import CNN, MLP
from hpo.training.randomness import drop_threshold, dropout_bytes, steps_per_draw

HELD_BYTES = 2**22
"""Approximate number of dropout bytes of a layer that are held at once."""


class _Stream:
    """The dropout bytes of one member in one layer, in the order of an epoch's steps."""

    def __init__(self, seed: int, epoch: int, layer: int, units: int, device: torch.device) -> None:
        self._name, self._units, self._device = (seed, epoch, layer), units, device
        self._per_draw = steps_per_draw(units)
        self._first = -self._per_draw
        self._drawn = torch.empty(0)

    def take(self, first: int, count: int) -> list[Tensor]:
        """Return the bytes of `count` steps from step `first` on, in parts: uint8 [steps of the part, units]."""
        parts = []
        while count > 0:
            start = first - first % self._per_draw
            if start != self._first:
                drawn = dropout_bytes(*self._name, first=start, units=self._units, device=self._device)
                self._drawn, self._first = drawn.view(-1, self._units), start
            parts.append(self._drawn[first - start : first - start + count])
            first, count = first + len(parts[-1]), count - len(parts[-1])
        return parts


class Drop(NamedTuple):
    """The dropout of a member at one site."""

    rate: float
    units: int
    """Number of units of one row."""
    number: int
    """Number of the site, from 0, among those where the member has dropout."""


@dataclass(frozen=True)
class Site:
    """A place in the networks of a program where at least one has dropout."""

    index: int
    """Number of the layer or stage, from the inputs on."""
    mask: Tensor
    """Factor of each unit: [slots, rows, units], for the slots that have this layer, which are the first ones."""
    of: Callable[[Any], Drop]
    """Returns the dropout of a network at this site."""


class Rules(NamedTuple):
    """What turns a site's random bytes into its mask."""

    bytes: Tensor
    """Random bytes: uint8 [steps held, slots, rows, units]."""
    thresholds: Tensor
    """Bytes below it drop their unit: uint8 [slots, 1, 1]."""
    scales: Tensor
    """Factor of the units that are kept: [slots, 1, 1]."""


def new_rules(mask: Tensor, held: int) -> Rules:
    """Return the rules of a site for `held` steps, none of which drops anything."""
    slots, device = len(mask), mask.device
    drawn = torch.zeros(held, *mask.shape, dtype=torch.uint8, device=device)
    thresholds = torch.zeros(slots, 1, 1, dtype=torch.uint8, device=device)
    return Rules(drawn, thresholds, torch.ones(slots, 1, 1, dtype=mask.dtype, device=device))


class StackedRules:
    """The rules of several sites of one shape in common tensors, so that their masks take one call."""

    def __init__(self, masks: Tensor, steps: int) -> None:
        """`masks` are those of all sites: [sites, rows, slots, units]."""
        sites, _, slots, _ = masks.shape
        self.masks = masks
        self.bytes = torch.zeros(steps, *masks.shape, dtype=torch.uint8, device=masks.device)
        self.thresholds = torch.zeros(sites, 1, slots, 1, dtype=torch.uint8, device=masks.device)
        self.scales = torch.ones(sites, 1, slots, 1, dtype=masks.dtype, device=masks.device)

    def rules(self, site: int) -> Rules:
        """Return the part of a site."""
        thresholds, scales = (tensor[site].transpose(0, 1) for tensor in (self.thresholds, self.scales))
        return Rules(self.bytes[:, site].transpose(1, 2), thresholds, scales)

    def set_masks(self, drawn: Tensor) -> None:
        """Compute the masks of all sites from the random bytes of a step: uint8 [sites, rows, slots, units]."""
        torch.mul(drawn >= self.thresholds, self.scales, out=self.masks)


def dropped_at(network: MLP | CNN) -> list[int]:
    """Return the indices of the layers, or of the stages and the head, at which a network has dropout."""
    rates = network.dropout if isinstance(network, MLP) else (*network.dropout, network.head_dropout)
    return [index for index, rate in enumerate(rates) if drop_threshold(rate)[0] > 0]


class Dropout:
    """The dropout of all slots at one site."""

    def __init__(
        self,
        site: Site,
        networks: Sequence[Any],
        steps: int,
        *,
        whole_epoch: bool,
        rules: Rules | None = None,
    ) -> None:
        """An epoch has `steps` steps; with `whole_epoch` the bytes of all of them are drawn at its start.

        `rules` are memory for all steps that other sites share.
        """
        self.site, self.steps = site, steps
        self.slots, self.rows, _ = site.mask.shape
        self._drops = [site.of(network) for network in networks[: self.slots]]
        self.held = steps if whole_epoch else min(steps, max(1, HELD_BYTES // site.mask.numel()))
        self.bytes, self._threshold, self._scale = rules or new_rules(site.mask, self.held)
        for slot in range(self.slots):
            self._set_rule(slot)
        self._streams: dict[int, _Stream] = {}

    def replace(self, slot: int, network: Any) -> None:
        """Give a slot the dropout of another network; None for an empty slot."""
        if slot < self.slots:
            self._drops[slot] = self.site.of(network) if network is not None else Drop(0.0, 0, 0)
            self._set_rule(slot)
            self._streams.pop(slot, None)

    def _set_rule(self, slot: int) -> None:
        threshold, scale = drop_threshold(self._drops[slot].rate)
        # A threshold of 256, at which nothing is kept, does not fit in a byte; a scale of 0 does the same.
        self._threshold[slot], self._scale[slot] = threshold % 256, scale

    def start_epoch(self, slot: int, seed: int, epoch: int) -> None:
        """Start the masks of a slot's next epoch."""
        if slot < self.slots and drop_threshold(self._drops[slot].rate)[0] > 0:
            drop = self._drops[slot]
            units, device = self.rows * drop.units, self.bytes.device
            self._streams[slot] = _Stream(seed, epoch, drop.number, units, device)

    def fill(self, first: int = 0) -> None:
        """Draw the bytes of the steps from `first` on, as many as are held at once."""
        for slot, stream in self._streams.items():
            step, units = 0, self._drops[slot].units
            for part in stream.take(first, min(self.held, self.steps - first)):
                self.bytes[step : step + len(part), slot, :, :units] = part.view(len(part), -1, units)
                step += len(part)

    def set_step(self, step: int) -> None:
        """Compute the masks of a step of the epoch; to be called for each step in order."""
        if step and step % self.held == 0:
            self.fill(step)
        self.set_mask(self.bytes[step % self.held])

    def set_mask(self, drawn: Tensor) -> None:
        """Compute the masks from random bytes: uint8 [slots, rows, units]."""
        torch.mul(drawn >= self._threshold, self._scale, out=self.site.mask)
