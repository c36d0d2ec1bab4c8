"""What a program asks of the stacked networks that it trains, whatever family they are of."""

from collections.abc import Sequence
from typing import Protocol, cast

from torch import Tensor

from hpo.config import CNN, MLP, TrialConfig
from hpo.training.packed.blocks import AnyLayout, Blocks
from hpo.training.packed.bucket import Bucket
from hpo.training.packed.cnn import CNNs, ConvImpl
from hpo.training.packed.cnn_layout import CNNLayout
from hpo.training.packed.loss import Loss
from hpo.training.packed.masks import Site
from hpo.training.packed.mlp import MLPs
from hpo.training.packed.mlp_layout import MLPLayout


class PackedNetwork(Protocol):
    """All slots' networks as one: parameters, gradients, and the buffers between."""

    params: Blocks
    grads: Blocks
    loss: Loss
    logits: Tensor
    """Of the last batch: [S, N, C]."""

    @property
    def layout(self) -> AnyLayout:
        """Return what lies where."""
        ...

    @property
    def sites(self) -> Sequence[Site]:
        """Return where members drop units."""
        ...

    def learn(self, data: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        """Leave the gradients of each member's mean loss over its batch in `grads`; return the logits.

        data holds all training rows; rows and labels are [S, N]: every member has rows of its own. The logits,
        [S, N, C], are overwritten by the next call.
        """
        ...

    def evaluate(self, x: Tensor) -> Tensor:
        """Return every member's logits of the same rows, [S, rows, C], without dropout, on running statistics."""
        ...

    def statistics(self, slot: int) -> dict[str, Tensor]:
        """Return views of a member's running statistics, by the plain network's names."""
        ...

    def running(self) -> list[Tensor]:
        """Return the running statistics of all."""
        ...

    def replace(self, slot: int) -> None:
        """Have a slot be what the layout says now, with nothing learned."""
        ...


def inputs_of(config: TrialConfig, x: Tensor) -> Tensor:
    """Return rows as a config's network takes them in a program: images, or flat."""
    return x.contiguous() if isinstance(config.model, CNN) else x.flatten(1).contiguous()


def sort_key(network: MLP | CNN) -> tuple[int, str]:
    """Return what slots are ordered by: deepest first, then equal activations side by side."""
    return -len(network.widths) if isinstance(network, MLP) else 0, network.activation


def stacked(
    configs: Sequence[TrialConfig], rows: Tensor, classes: int, bucket: Bucket, static_shapes: bool, way: ConvImpl
) -> PackedNetwork:
    """Stack the networks of configs that are in the order of `sort_key` and of one bucket.

    `rows` are the training rows; `static_shapes` has the shapes hold networks to come; `way` is that of convolutions.
    """
    batch = bucket.batch
    networks = [config.model for config in configs]
    smoothing = [config.label_smoothing for config in configs]
    if isinstance(networks[0], CNN):
        layout = CNNLayout(cast(list[CNN], networks), tuple(rows.shape[1:]), classes, batch, static_shapes)
        return CNNs(layout, smoothing, rows.dtype, rows.device, way, bucket.precision)
    flat = MLPLayout(cast(list[MLP], networks), rows.shape[1], classes, batch, static_shapes)
    return MLPs(flat, smoothing, rows.dtype, rows.device)
