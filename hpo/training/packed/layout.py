"""How networks of different shapes lie side by side in padded tensors.

Slots are ordered deepest first, so that the members that have a layer l are the first `counts[l]` slots. Each
layer is as wide as its widest member, rounded up. Rows and columns beyond a member's own are zero and stay so:
their inputs' weights are zero, hence their activations, hence their gradients (sigmoid's are masked).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hpo.config import MLP

ROUNDED_TO = 16
"""Floats in a vector register's worth: narrower steps would save nothing."""


@dataclass(frozen=True)
class Group:
    """The neighbouring slots whose networks are equally deep."""

    depth: int
    start: int
    stop: int


@dataclass(frozen=True)
class Layout:
    """The shapes of a program's tensors. `networks` are its slots, deepest first."""

    networks: tuple[MLP, ...]
    features: int
    classes: int
    batch: int

    @property
    def slots(self) -> int:
        return len(self.networks)

    @property
    def depth(self) -> int:
        return len(self.networks[0].widths)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Slots that have layer l: the first so many."""
        return tuple(sum(len(network.widths) > layer for network in self.networks) for layer in range(self.depth))

    @cached_property
    def widths(self) -> tuple[int, ...]:
        widest = [max(n.widths[layer] for n in self.networks[:count]) for layer, count in enumerate(self.counts)]
        return tuple(-(-width // ROUNDED_TO) * ROUNDED_TO for width in widest)

    @cached_property
    def inputs(self) -> tuple[int, ...]:
        """Inputs of each hidden layer."""
        return (self.features, *self.widths[:-1])

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        found, start = [], 0
        while start < self.slots:
            depth = len(self.networks[start].widths)
            stop = self.counts[depth - 1]
            found.append(Group(depth, start, stop))
            start = stop
        return tuple(found)

    @cached_property
    def normed(self) -> tuple[bool, ...]:
        """Whether any member has batch norm, by layer."""
        return tuple(any(n.norm == "batch" for n in self.networks[:count]) for count in self.counts)

    @cached_property
    def vector_places(self) -> dict[str, tuple[int, int]]:
        """Where in a slot's row of vectors each one begins, and its padded length: `bias0`, `scale0`, `shift0`, ..."""
        places, start = {}, 0
        for layer, width in enumerate(self.widths):
            for name in ("bias", "scale", "shift") if self.normed[layer] else ("bias",):
                places[f"{name}{layer}"] = (start, width)
                start += width
        places["output"] = (start, self.classes)
        return places

    def runs(self, layer: int) -> Iterator[tuple[str, int, int]]:
        """Yield the neighbouring slots that have a layer and the same activation: name, first, one past the last."""
        start = 0
        for slot in range(1, self.counts[layer] + 1):
            here = self.networks[start].activation
            if slot == self.counts[layer] or self.networks[slot].activation != here:
                yield here, start, slot
                start = slot


def sort_key(network: MLP) -> tuple[int, str]:
    """Return what slots are ordered by: deepest first, then equal activations side by side."""
    return -len(network.widths), network.activation


class Blocks:
    """One padded tensor per weight matrix, over all slots that have it, and one row of vectors per slot.

    Parameters are such blocks, and so are gradients and each moment of an optimizer.
    """

    def __init__(self, layout: Layout, dtype: torch.dtype, device: torch.device) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.layout = layout
        shapes = zip(layout.counts, layout.widths, layout.inputs, strict=True)
        self.hidden = [zeros(count, width, inputs) for count, width, inputs in shapes]
        """[slots, outputs, inputs] of each hidden layer."""
        self.output = [zeros(g.stop - g.start, layout.classes, layout.widths[g.depth - 1]) for g in layout.groups]
        """[slots, classes, inputs] of each group."""
        start, length = layout.vector_places["output"]
        self.vectors = zeros(layout.slots, start + length)

    def tensors(self) -> list[Tensor]:
        return [*self.hidden, *self.output, self.vectors]

    def blocks(self) -> Iterator[tuple[Tensor, int, int]]:
        """Yield each block with its first slot and one past its last."""
        for block in self.hidden:
            yield block, 0, len(block)
        for block, group in zip(self.output, self.layout.groups, strict=True):
            yield block, group.start, group.stop
        yield self.vectors, 0, self.layout.slots

    def vector(self, name: str, count: int) -> Tensor:
        """Return a vector of the first `count` slots: [count, length]."""
        start, length = self.layout.vector_places[name]
        return self.vectors[:count, start : start + length]

    def pieces(self, slot: int) -> list[Tensor]:
        """Return what belongs to a slot, padding included."""
        depth = len(self.layout.networks[slot].widths)
        return [*(block[slot] for block in self.hidden[:depth]), self._output_of(slot), self.vectors[slot]]

    def _output_of(self, slot: int) -> Tensor:
        for block, group in zip(self.output, self.layout.groups, strict=True):
            if slot < group.stop:
                return block[slot - group.start]
        raise IndexError(slot)

    def views(self, slot: int) -> dict[str, Tensor]:
        """Return a member's own part under the names, in the order and in the shapes of the plain network."""
        network, inputs = self.layout.networks[slot], self.layout.features
        found: dict[str, Tensor] = {}
        for layer, width in enumerate(network.widths):
            name = f"hidden.{layer}."
            found[f"{name}linear.weight"] = self.hidden[layer][slot, :width, :inputs]
            found[f"{name}linear.bias"] = self._vector_of(slot, f"bias{layer}", width)
            if network.norm == "batch":
                found[f"{name}norm.weight"] = self._vector_of(slot, f"scale{layer}", width)
                found[f"{name}norm.bias"] = self._vector_of(slot, f"shift{layer}", width)
            inputs = width
        found["output.weight"] = self._output_of(slot)[:, :inputs]
        found["output.bias"] = self._vector_of(slot, "output", self.layout.classes)
        return found

    def _vector_of(self, slot: int, name: str, length: int) -> Tensor:
        start, _ = self.layout.vector_places[name]
        return self.vectors[slot, start : start + length]
