"""The layout of multilayer perceptrons of different depths and widths in padded tensors.

Slots are ordered deepest first, so that the members that have a layer l are the first `counts[l]` slots. Each layer is
as wide as its widest member, rounded up.

Where shapes are static, every slot has every layer and all layers have one width: members of fewer layers have zeros in
the others, which takes no kernel more. Then slots are ordered by activation alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpo.config import MLP
from hpo.training.packed.layout.blocks import Layout, Matrix, Place, padded


@dataclass(frozen=True)
class Group:
    """Neighbouring slots whose networks have the same depth."""

    depth: int
    start: int
    stop: int

    @property
    def output(self) -> str:
        """Name of the matrix of the output layers' weights: [slots, classes, inputs]."""
        return f"output{self.depth}"


class MLPLayout(Layout[MLP]):
    """The layout of MLPs; `networks` are its slots, deepest first."""

    def __init__(
        self, networks: Sequence[MLP], features: int, classes: int, batch: int, *, static_shapes: bool = False
    ) -> None:
        super().__init__(networks, classes, batch, static_shapes=static_shapes)
        self.features = features
        self.depth = max(len(network.widths) for network in networks)
        self.counts = [sum(len(network.widths) > layer for network in networks) for layer in range(self.depth)]
        """Number of slots that have layer l."""
        self.widths = [
            padded(max(network.widths[layer] for network in networks if len(network.widths) > layer))
            for layer in range(self.depth)
        ]
        if static_shapes:
            self.counts, self.widths = [self.slots] * self.depth, [max(self.widths)] * self.depth
        self.inputs = [features, *self.widths[:-1]]
        """Number of inputs of each hidden layer."""
        self.normed = [any(n.norm != "none" for n in networks[:count]) for count in self.counts]
        """Whether any member has a norm, by layer. Where one has layer norm, all have it."""
        self.groups = self._groups()
        hidden = zip(self.counts, self.widths, self.inputs, strict=True)
        self.matrices = (
            *(Matrix(f"hidden{i}", 0, count, shape) for i, (count, *shape) in enumerate(hidden)),  # type: ignore[arg-type]
            *(Matrix(g.output, g.start, g.stop, (classes, self.widths[g.depth - 1])) for g in self.groups),
        )
        for layer, width in enumerate(self.widths):
            self._append(f"bias{layer}", width)
        for layer, width in enumerate(self.widths):
            for name in ("scale", "shift") if self.normed[layer] else ():
                self._append(f"{name}{layer}", width)
        self._append("output", classes)

    def _groups(self) -> list[Group]:
        if self.static_shapes:
            return [Group(self.depth, 0, self.slots)]
        groups, start = [], 0
        while start < self.slots:
            depth = len(self.networks[start].widths)
            stop = self.counts[depth - 1]
            groups.append(Group(depth, start, stop))
            start = stop
        return groups

    def places(self, slot: int) -> Iterator[Place]:
        """Yield the places of a slot's parameters, in the order of the plain network."""
        network, inputs = self.networks[slot], self.features
        for layer, width in enumerate(network.widths):
            name = f"hidden.{layer}."
            yield Place(f"{name}linear.weight", f"hidden{layer}", (width, inputs))
            yield Place(f"{name}linear.bias", f"bias{layer}", (width,))
            if network.norm != "none":
                yield Place(f"{name}norm.weight", f"scale{layer}", (width,))
                yield Place(f"{name}norm.bias", f"shift{layer}", (width,))
            inputs = width
        depth = self.depth if self.static_shapes else len(network.widths)
        yield Place("output.weight", f"output{depth}", (self.classes, inputs))
        yield Place("output.bias", "output", (self.classes,))

    def holds(self, network: MLP) -> bool:
        """Return whether a slot has room for another network, whatever its activation.

        It must be no deeper or wider than the layout; any norm fits where the layout has one.
        """
        return (
            len(network.widths) <= self.depth
            and all(width <= most for width, most in zip(network.widths, self.widths, strict=False))
            and (network.norm == "none" or all(self.normed[: len(network.widths)]))
        )
