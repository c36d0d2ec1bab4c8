"""The layout of CNNs of one form in padded tensors: each stage has the channels of its widest member."""

from collections.abc import Iterator, Sequence

from hpo.config import CNN
from hpo.training.packed.layout.blocks import Layout, Matrix, Place, padded

CHANNELS_ROUNDED_TO = 4


def form_of(network: CNN) -> tuple[object, ...]:
    """Return the part of a network that must be equal in one layout; everything else may differ."""
    dense = network.head_width > 0
    return network.convs, network.pool, network.kernel, network.head, network.head_size, dense


class CNNLayout(Layout[CNN]):
    """The layout of CNNs; `networks` are its slots, all of one form."""

    def __init__(
        self,
        networks: Sequence[CNN],
        input_shape: tuple[int, ...],
        classes: int,
        batch: int,
        *,
        static_shapes: bool = False,
    ) -> None:
        super().__init__(networks, classes, batch, static_shapes=static_shapes)
        first = networks[0]
        self.input_shape = channels, height, width = input_shape
        self.convs, self.pool, self.kernel = first.convs, first.pool, first.kernel
        self.head, self.head_size = first.head, first.head_size
        self.channels = [
            padded(max(n.channels[stage] for n in networks), CHANNELS_ROUNDED_TO)
            for stage in range(len(first.channels))
        ]
        """Padded number of channels of each stage."""
        self.head_width = max(network.head_width for network in networks)
        self.normed = any(network.norm == "batch" for network in networks)
        matrices = []
        for stage, conv in self.places_of_convs():
            inputs = channels if stage == 0 and conv == 0 else self.channels[stage - (conv == 0)]
            shape = (self.channels[stage], inputs, self.kernel, self.kernel)
            matrices.append(Matrix(f"conv{stage}.{conv}", 0, self.slots, shape))
            for name in ("bias", "scale", "shift") if self.normed else ("bias",):
                self._append(f"{name}{stage}.{conv}", self.channels[stage])
        for kind in self.pool:
            if kind != "none":
                height, width = height // 2, width // 2
        self.pixels = height * width if self.head == "flatten" else self.head_size**2
        """Number of pixels of each channel that the head takes."""
        features = self.channels[-1] * self.pixels
        if self.head_width:
            matrices.append(Matrix("linear", 0, self.slots, (self.head_width, features)))
            self._append("linear_bias", self.head_width)
            features = self.head_width
        matrices.append(Matrix("output", 0, self.slots, (classes, features)))
        self._append("output_bias", classes)
        self.features = features
        """Number of inputs of the output layer."""
        self.matrices = tuple(matrices)

    def places_of_convs(self) -> Iterator[tuple[int, int]]:
        """Yield the stage, and the number in the stage, of each convolution."""
        for stage, count in enumerate(self.convs):
            for conv in range(count):
                yield stage, conv

    def places(self, slot: int) -> Iterator[Place]:
        """Yield the places of a slot's parameters, in the order of the plain network."""
        network = self.networks[slot]
        inputs = self.input_shape[0]
        for stage, conv in self.places_of_convs():
            channels, prefix = network.channels[stage], f"stages.{stage}."
            shape = (channels, inputs, self.kernel, self.kernel)
            yield Place(f"{prefix}conv{conv}.weight", f"conv{stage}.{conv}", shape)
            yield Place(f"{prefix}conv{conv}.bias", f"bias{stage}.{conv}", (channels,))
            if network.norm == "batch":
                yield Place(f"{prefix}norm{conv}.weight", f"scale{stage}.{conv}", (channels,))
                yield Place(f"{prefix}norm{conv}.bias", f"shift{stage}.{conv}", (channels,))
            inputs = channels
        features = inputs * self.pixels
        if self.head_width:
            yield Place("head.linear.weight", "linear", (network.head_width, features))
            yield Place("head.linear.bias", "linear_bias", (network.head_width,))
            features = network.head_width
        yield Place("head.output.weight", "output", (self.classes, features))
        yield Place("head.output.bias", "output_bias", (self.classes,))

    def holds(self, network: CNN) -> bool:
        """Return whether a slot has room for another network, whatever its activation.

        It must have no more channels; any norm fits where the layout has one.
        """
        return (
            all(channels <= most for channels, most in zip(network.channels, self.channels, strict=True))
            and network.head_width <= self.head_width
            and (network.norm == "none" or self.normed)
        )
