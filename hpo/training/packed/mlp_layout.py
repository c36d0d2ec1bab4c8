"""How multilayer perceptrons of different depths and widths lie side by side.

Slots are ordered deepest first, so that the members that have a layer l are the first `counts[l]` slots. Each
layer is as wide as its widest member, rounded up.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpo.config import MLP
from hpo.training.packed.blocks import Layout, Matrix, Place, padded


@dataclass(frozen=True)
class Group:
    """The neighbouring slots whose networks are equally deep."""

    depth: int
    start: int
    stop: int

    @property
    def output(self) -> str:
        """The name of the output layers' weights: [slots, classes, inputs]."""
        return f"output{self.depth}"


class MLPLayout(Layout[MLP]):
    """The shapes of a program's tensors. `networks` are its slots, deepest first."""

    def __init__(
        self, networks: Sequence[MLP], features: int, classes: int, batch: int, static_shapes: bool = False
    ) -> None:
        super().__init__(networks, classes, batch, static_shapes)
        self.features = features
        self.depth = len(networks[0].widths)
        self.counts = [sum(len(network.widths) > layer for network in networks) for layer in range(self.depth)]
        """Slots that have layer l: the first so many."""
        self.widths = [
            padded(max(network.widths[layer] for network in networks[:count]))
            for layer, count in enumerate(self.counts)
        ]
        self.inputs = [features, *self.widths[:-1]]
        """Inputs of each hidden layer."""
        self.normed = [any(network.norm != "none" for network in networks[:count]) for count in self.counts]
        """Whether any member has a norm, by layer. Where one has layer norm, all do."""
        self.groups = self._groups()
        hidden = zip(self.counts, self.widths, self.inputs, strict=True)
        self.matrices = (
            *(Matrix(f"hidden{i}", 0, count, shape) for i, (count, *shape) in enumerate(hidden)),  # type: ignore[arg-type]
            *(Matrix(g.output, g.start, g.stop, (classes, self.widths[g.depth - 1])) for g in self.groups),
        )
        for layer, width in enumerate(self.widths):
            for name in ("bias", "scale", "shift") if self.normed[layer] else ("bias",):
                self._append(f"{name}{layer}", width)
        self._append("output", classes)

    def _groups(self) -> list[Group]:
        found, start = [], 0
        while start < self.slots:
            depth = len(self.networks[start].widths)
            stop = self.counts[depth - 1]
            found.append(Group(depth, start, stop))
            start = stop
        return found

    def places(self, slot: int) -> Iterator[Place]:
        network, inputs = self.networks[slot], self.features
        for layer, width in enumerate(network.widths):
            name = f"hidden.{layer}."
            yield Place(f"{name}linear.weight", f"hidden{layer}", (width, inputs))
            yield Place(f"{name}linear.bias", f"bias{layer}", (width,))
            if network.norm != "none":
                yield Place(f"{name}norm.weight", f"scale{layer}", (width,))
                yield Place(f"{name}norm.bias", f"shift{layer}", (width,))
            inputs = width
        yield Place("output.weight", f"output{len(network.widths)}", (self.classes, inputs))
        yield Place("output.bias", "output", (self.classes,))

    def fits(self, slot: int, network: MLP) -> bool:
        """A slot's depth and activation are for good; narrower networks fit, and any norm where there is one."""
        present = self.networks[slot]
        return (
            (len(network.widths), network.activation) == (len(present.widths), present.activation)
            and all(width <= most for width, most in zip(network.widths, self.widths, strict=False))
            and (network.norm == "none" or all(self.normed[: len(network.widths)]))
        )
