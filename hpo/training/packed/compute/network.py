"""The interface of stacked networks to a program, the same for all families of networks."""

from collections.abc import Sequence
from typing import Protocol, cast

from torch import Tensor

from hpo.config import CNN, MLP, Network, TrialConfig
from hpo.training.packed.compute.cnn import CNNs, ConvImpl
from hpo.training.packed.compute.loss import Loss
from hpo.training.packed.compute.masks import Site
from hpo.training.packed.compute.mlp import MLPs
from hpo.training.packed.compute.static_mlp import StaticMLPs
from hpo.training.packed.layout.blocks import AnyLayout, Blocks
from hpo.training.packed.layout.bucket import Bucket
from hpo.training.packed.layout.cnn import CNNLayout
from hpo.training.packed.layout.mlp import MLPLayout


class PackedNetwork(Protocol):
    """The networks of all slots as one: parameters, gradients, and buffers."""

    params: Blocks
    grads: Blocks
    loss: Loss
    logits: Tensor
    """Logits of the latest batch: [S, N, C]."""

    @property
    def layout(self) -> AnyLayout:
        """The layout of the parameters."""
        ...

    @property
    def sites(self) -> Sequence[Site]:
        """The sites at which members have dropout."""
        ...

    def compute_gradients(self, data: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        """Write the gradients of each member's mean loss over its batch to `grads`; return the logits.

        `data` holds all training rows; `rows` and `labels` are [S, N]: each member has its own batch. The logits,
        [S, N, C], are overwritten by the next call.
        """
        ...

    def evaluate(self, x: Tensor) -> Tensor:
        """Return every member's logits for the same rows, in evaluation mode: [S, rows, C]."""
        ...

    def statistics(self, slot: int, running: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
        """Return views of a member's running statistics, by the plain network's names.

        With `running`, views of those tensors, which are like what the method `running` returns.
        """
        ...

    def running(self) -> list[Tensor]:
        """Return the running statistics of all slots: means and variances in turn, [slots, ...]."""
        ...

    def replace(self, slot: int) -> None:
        """Reset a slot to the network that its layout now has there, untrained."""
        ...


def inputs_of(config: TrialConfig, x: Tensor) -> Tensor:
    """Return rows in the form that a config's network takes in a program: images, or flat."""
    return x.contiguous() if isinstance(config.model, CNN) else x.flatten(1).contiguous()


def sort_key(network: Network, *, static_shapes: bool) -> tuple[int, str]:
    """Return the key by which slots are sorted: deepest first where that matters, then by activation."""
    assert isinstance(network, MLP | CNN)
    deepest_first = isinstance(network, MLP) and not static_shapes
    return -len(network.widths) if deepest_first else 0, network.activation  # type: ignore[union-attr]


def stacked(
    configs: Sequence[TrialConfig],
    rows: Tensor,
    classes: int,
    bucket: Bucket,
    *,
    static_shapes: bool,
    conv_impl: ConvImpl,
) -> PackedNetwork:
    """Stack the networks of configs of one bucket, which are sorted by `sort_key`; `rows` are the training rows."""
    batch = bucket.batch
    networks = [config.model for config in configs]
    smoothing = [config.label_smoothing for config in configs]
    if isinstance(networks[0], CNN):
        layout = CNNLayout(
            cast(list[CNN], networks), tuple(rows.shape[1:]), classes, batch, static_shapes=static_shapes
        )
        return CNNs(layout, smoothing, rows.dtype, rows.device, conv_impl=conv_impl, precision=bucket.precision)
    flat = MLPLayout(cast(list[MLP], networks), rows.shape[1], classes, batch, static_shapes=static_shapes)
    kind = StaticMLPs if static_shapes else MLPs
    return kind(flat, smoothing, rows.dtype, rows.device)
