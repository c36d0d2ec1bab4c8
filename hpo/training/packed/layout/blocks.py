"""Parameters of many networks in padded tensors.

The padding of a member's rows and columns is zero and stays zero: its weights are zero, therefore its activations are,
and therefore its gradients (those of sigmoid are masked).
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from hpo.config import CNN, MLP

ROUNDED_TO = 16
"""Number of floats in a vector register: rounding to less would save no time."""

Shaped = TypeVar("Shaped", MLP, CNN)


@dataclass(frozen=True)
class Matrix:
    """A weight of the slots from `start` up to, not including, `stop`."""

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]
    """Padded shape of one slot's weight."""


@dataclass(frozen=True)
class Place:
    """Where a parameter of a member is stored: in a matrix, or in its row of vectors."""

    parameter: str
    """Name of the parameter in the plain network's state dict."""
    block: str
    """Name of the matrix or vector."""
    shape: tuple[int, ...]
    """Shape of the parameter without padding; it is stored at the start of each dimension of the block."""


class Layout(Generic[Shaped]):
    """Where the parameters of each slot are stored. The networks of slots can be replaced by others that fit."""

    matrices: tuple[Matrix, ...]
    vectors: dict[str, tuple[int, int]]
    """Offset in a slot's row of vectors, and padded length, of each vector: `bias0`, `scale0`, `shift0`, ..."""

    def __init__(self, networks: Sequence[Shaped], classes: int, batch: int, *, static_shapes: bool) -> None:
        """With `static_shapes`, networks will be replaced later, so nothing may depend on the first ones' values."""
        self.networks: list[Shaped] = list(networks)
        self.classes, self.batch, self.static_shapes = classes, batch, static_shapes
        self.matrices, self.vectors = (), {}

    @property
    def slots(self) -> int:
        """Number of slots."""
        return len(self.networks)

    def runs(self, count: int) -> Iterator[tuple[str, int, int]]:
        """Yield the runs of equal activations among the first `count` slots: activation, first slot, last slot + 1."""
        start = 0
        for slot in range(1, count + 1):
            activation = self.networks[start].activation
            if slot == count or self.networks[slot].activation != activation:
                yield activation, start, slot
                start = slot

    def places(self, slot: int) -> Iterator[Place]:
        """Yield the places of a slot's parameters, in the order of the plain network."""
        raise NotImplementedError

    def holds(self, network: Shaped) -> bool:
        """Return whether a slot has room for another network, whatever its activation."""
        raise NotImplementedError

    def replace(self, slot: int, network: Shaped) -> None:
        """Put another network, which fits, into a slot."""
        self.networks[slot] = network

    def _append(self, name: str, length: int) -> None:
        start = sum(self.vectors[list(self.vectors)[-1]]) if self.vectors else 0
        self.vectors[name] = (start, length)


AnyLayout = Layout[MLP] | Layout[CNN]


def padded(size: int, to: int = ROUNDED_TO) -> int:
    """Return a size rounded up to a multiple."""
    return -(-size // to) * to


class Blocks:
    """One padded tensor per weight, over all slots that have it, and one row of vectors per slot.

    Parameters are such blocks, and so are gradients and each moment of an optimizer. Where shapes are static, all
    blocks are parts of one slab, [slots, numbers], so that an optimizer's step takes a few kernels for all of them.
    """

    def __init__(self, layout: AnyLayout, dtype: torch.dtype, device: torch.device) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.layout = layout
        sizes = [math.prod(matrix.shape) for matrix in layout.matrices]
        sizes.append(sum(length for _, length in layout.vectors.values()))
        self.slab = zeros(layout.slots, padded(sum(sizes))) if layout.static_shapes else None
        """All blocks side by side; None where they are separate."""
        if self.slab is not None:
            stops = list(itertools.accumulate(sizes))
            parts = [self.slab[:, stop - size : stop] for size, stop in zip(sizes, stops, strict=True)]
            shapes = [(layout.slots, *matrix.shape) for matrix in layout.matrices]
            blocks = [part.view(shape) for part, shape in zip(parts, shapes, strict=False)]
            self.vectors = parts[-1]
        else:
            blocks = [zeros(matrix.stop - matrix.start, *matrix.shape) for matrix in layout.matrices]
            self.vectors = zeros(layout.slots, sizes[-1])
        self.matrices = {matrix.name: block for matrix, block in zip(layout.matrices, blocks, strict=True)}
        """Blocks by name: [slots that have the weight, ...]."""

    def tensors(self) -> list[Tensor]:
        """Return the slab, or all blocks where there is none."""
        return [*self.matrices.values(), self.vectors] if self.slab is None else [self.slab]

    def blocks(self) -> Iterator[tuple[Tensor, int, int]]:
        """Yield each of `tensors` with its first slot and its last slot + 1."""
        if self.slab is not None:
            yield self.slab, 0, self.layout.slots
            return
        for matrix in self.layout.matrices:
            yield self.matrices[matrix.name], matrix.start, matrix.stop
        yield self.vectors, 0, self.layout.slots

    def vector(self, name: str, count: int) -> Tensor:
        """Return a vector of the first `count` slots: [count, length]."""
        start, length = self.layout.vectors[name]
        return self.vectors[:count, start : start + length]

    def pieces(self, slot: int) -> list[Tensor]:
        """Return the parts of all blocks that belong to a slot, padding included."""
        return [block[slot - start] for block, start, stop in self.blocks() if start <= slot < stop]

    def views(self, slot: int) -> dict[str, Tensor]:
        """Return views of a member's parameters with the names, order and shapes of the plain network."""
        starts = {matrix.name: matrix.start for matrix in self.layout.matrices}
        views: dict[str, Tensor] = {}
        for place in self.layout.places(slot):
            if place.block in starts:
                block = self.matrices[place.block][slot - starts[place.block]]
            else:
                start, length = self.layout.vectors[place.block]
                block = self.vectors[slot, start : start + length]
            views[place.parameter] = block[tuple(slice(size) for size in place.shape)]
        return views

    def clear(self, slot: int) -> None:
        """Set everything of a slot to zero."""
        for piece in self.pieces(slot):
            piece.zero_()
