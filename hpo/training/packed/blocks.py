"""Parameters of many networks, side by side in padded tensors.

Rows and columns beyond a member's own are zero and stay so: their inputs' weights are zero, hence their
activations, hence their gradients (sigmoid's are masked).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from hpo.config import CNN, MLP

ROUNDED_TO = 16
"""Floats in a vector register's worth: narrower steps would save nothing."""

Shaped = TypeVar("Shaped", MLP, CNN)


@dataclass(frozen=True)
class Matrix:
    """A weight of the slots from `start` to before `stop`."""

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]
    """Padded, of one slot."""


@dataclass(frozen=True)
class Place:
    """Where a parameter of a member lies: in a matrix, or in its row of vectors."""

    parameter: str
    """By the name that the plain network's state dict has for it."""
    block: str
    shape: tuple[int, ...]
    """The member's own part, of the padded block's beginning."""


class Layout(Generic[Shaped]):
    """What lies where. Slots' networks may be replaced by others that fit."""

    matrices: tuple[Matrix, ...]
    vectors: dict[str, tuple[int, int]]
    """Where in a slot's row of vectors each one begins, and its padded length: `bias0`, `scale0`, `shift0`, ..."""

    def __init__(self, networks: Sequence[Shaped], classes: int, batch: int, static_shapes: bool) -> None:
        """`static_shapes` has the shapes hold networks to come, not only those they begin with."""
        self.networks: list[Shaped] = list(networks)
        self.classes, self.batch, self.static_shapes = classes, batch, static_shapes
        self.matrices, self.vectors = (), {}

    @property
    def slots(self) -> int:
        return len(self.networks)

    def runs(self, count: int) -> Iterator[tuple[str, int, int]]:
        """Yield neighbours, of the first so many slots, with the same activation: name, first, one past the last."""
        start = 0
        for slot in range(1, count + 1):
            here = self.networks[start].activation
            if slot == count or self.networks[slot].activation != here:
                yield here, start, slot
                start = slot

    def places(self, slot: int) -> Iterator[Place]:
        """Yield a member's parameters, in the plain network's order."""
        raise NotImplementedError

    def fits(self, slot: int, network: Shaped) -> bool:
        """Say whether a slot could hold a network instead of its own."""
        raise NotImplementedError

    def replace(self, slot: int, network: Shaped) -> None:
        """Have a slot hold a network that fits."""
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

    Parameters are such blocks, and so are gradients and each moment of an optimizer.
    """

    def __init__(self, layout: AnyLayout, dtype: torch.dtype, device: torch.device) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.layout = layout
        self.matrices = {m.name: zeros(m.stop - m.start, *m.shape) for m in layout.matrices}
        """By name: [slots, ...]."""
        self.vectors = zeros(layout.slots, sum(length for _, length in layout.vectors.values()))

    def tensors(self) -> list[Tensor]:
        return [*self.matrices.values(), self.vectors]

    def blocks(self) -> Iterator[tuple[Tensor, int, int]]:
        """Yield each block with its first slot and one past its last."""
        for matrix in self.layout.matrices:
            yield self.matrices[matrix.name], matrix.start, matrix.stop
        yield self.vectors, 0, self.layout.slots

    def vector(self, name: str, count: int) -> Tensor:
        """Return a vector of the first `count` slots: [count, length]."""
        start, length = self.layout.vectors[name]
        return self.vectors[:count, start : start + length]

    def pieces(self, slot: int) -> list[Tensor]:
        """Return what belongs to a slot, padding included."""
        return [block[slot - start] for block, start, stop in self.blocks() if start <= slot < stop]

    def views(self, slot: int) -> dict[str, Tensor]:
        """Return a member's own part under the names, in the order and in the shapes of the plain network."""
        starts = {matrix.name: matrix.start for matrix in self.layout.matrices}
        found: dict[str, Tensor] = {}
        for place in self.layout.places(slot):
            if place.block in starts:
                block = self.matrices[place.block][slot - starts[place.block]]
            else:
                start, length = self.layout.vectors[place.block]
                block = self.vectors[slot, start : start + length]
            found[place.parameter] = block[tuple(slice(size) for size in place.shape)]
        return found

    def clear(self, slot: int) -> None:
        """Set everything of a slot to zero."""
        for piece in self.pieces(slot):
            piece.zero_()
