"""Norms of `hpo.training.packed.compute.static_mlp`, for all layers.

Shapes: L layers, S slots, N rows, W the padded width.
"""

from typing import Protocol

import torch
from torch import Tensor

from hpo.config import MLP
from hpo.training.packed.compute.norms import EPS, MOMENTUM, LayerNorm
from hpo.training.packed.layout.blocks import Blocks
from hpo.training.packed.layout.mlp import MLPLayout

_aten = torch.ops.aten


class StaticNorm(Protocol):
    """The norm of all layers and slots."""

    def replace(self, slot: int, network: MLP) -> None:
        """Reset a slot for another network."""
        ...

    def begin(self) -> None:
        """Prepare a step."""
        ...

    def forward(self, layer: int, z: Tensor) -> Tensor:
        """Normalize a layer's z, [N, S, W], which may be overwritten; return the output: [S, N, W]."""
        ...

    def output(self, layer: int) -> Tensor:
        """Return what `forward` returned for a layer."""
        ...

    def backward(self, layer: int, z: Tensor, grad: Tensor) -> None:
        """Turn the gradient of a layer's output, [N, S, W], into that of its input, in place."""
        ...

    def end(self) -> None:
        """Write the gradients of scale and shift of all layers."""
        ...

    def evaluate(self, layer: int, z: Tensor) -> None:
        """Normalize z [S, rows, W] in place, in evaluation mode."""
        ...


class StaticBatchNorm:
    """torch's batch norm over the units of all slots; the values of members without it stay unchanged."""

    def __init__(self, layout: MLPLayout, params: Blocks, grads: Blocks) -> None:
        depth, slots, rows, width = layout.depth, layout.slots, layout.batch, layout.widths[0]
        like, start = params.vectors, layout.vectors["scale0"][0]

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=like.dtype, device=like.device)

        def affine(blocks: Blocks) -> Tensor:
            """Return scale and shift of all layers in turn: [2 L, S, W]."""
            whole = blocks.vectors[:, start : start + 2 * depth * width]
            return whole.view(slots, 2 * depth, width).transpose(0, 1)

        self._affine, self._affine_grads = affine(params), affine(grads)
        self._scales, self._offsets = zeros(2 * depth, slots, width), zeros(2 * depth, slots, width)
        """Scale and shift in turn; the scale of members without the norm, stored as 0, is 1 here."""
        self.running = zeros(2 * depth, slots, width)
        """Running mean and variance in turn."""
        self._has = torch.zeros(slots, 1, dtype=torch.bool, device=like.device)
        self.has_number = zeros(slots, 1)
        self._normed = zeros(depth, rows, slots, width)
        self.saved = zeros(depth, 2, slots * width)
        """Mean and inverse standard deviation of the batch."""
        self._grads: list[Tensor] = []

    def replace(self, slot: int, network: MLP) -> None:
        """Reset a slot for another network, with initial statistics."""
        has = network.norm == "batch"
        self._has[slot], self.has_number[slot] = has, float(has)
        self._offsets[0::2, slot] = 0.0 if has else 1.0
        self.running[0::2, slot], self.running[1::2, slot] = 0.0, 1.0

    def begin(self) -> None:
        """Prepare a step."""
        torch.add(self._affine, self._offsets, out=self._scales)

    def _of(self, layer: int, tensor: Tensor) -> tuple[Tensor, Tensor]:
        return tensor[2 * layer].view(-1), tensor[2 * layer + 1].view(-1)

    def forward(self, layer: int, z: Tensor) -> Tensor:
        """Normalize a layer's z, [N, S, W]; return the output: [S, N, W]."""
        normed, (mean, inverse) = self._normed[layer], self.saved[layer]
        _aten.native_batch_norm.out(
            z.flatten(1),
            *self._of(layer, self._scales),
            *self._of(layer, self.running),
            True,  # noqa: FBT003 - in training mode; these operators take no names
            MOMENTUM,
            EPS,
            out=normed.flatten(1),
            save_mean=mean,
            save_invstd=inverse,
        )
        torch.where(self._has, normed, z, out=normed)
        return normed.transpose(0, 1)

    def output(self, layer: int) -> Tensor:
        """Return what `forward` returned for a layer."""
        return self._normed[layer].transpose(0, 1)

    def backward(self, layer: int, z: Tensor, grad: Tensor) -> None:
        """Turn the gradient of a layer's output, [N, S, W], into that of its input, in place."""
        of_input, scale, shift = _aten.native_batch_norm_backward(
            grad.flatten(1),
            z.flatten(1),
            self._of(layer, self._scales)[0],
            *self._of(layer, self.running),
            *self.saved[layer],
            True,  # noqa: FBT003
            EPS,
            [True, True, True],
        )
        torch.where(self._has, of_input.view_as(grad), grad, out=grad)
        self._grads = [scale, shift, *self._grads]

    def end(self) -> None:
        """Write the gradients of scale and shift of all layers; zero for members without the norm."""
        torch.mul(torch.stack(self._grads).view_as(self._scales), self.has_number, out=self._affine_grads)
        self._grads = []

    def evaluate(self, layer: int, z: Tensor) -> None:
        """Normalize z [S, rows, W] by the running statistics, in place."""
        mean, variance = self.running[2 * layer], self.running[2 * layer + 1]
        scale, shift = self._affine[2 * layer], self._affine[2 * layer + 1]
        mean = torch.where(self._has, mean, 0)
        factor = torch.where(self._has, torch.rsqrt(variance + EPS) * scale, 1)
        z.sub_(mean.unsqueeze(1)).mul_(factor.unsqueeze(1)).add_(shift.unsqueeze(1))


class StaticLayerNorm:
    """Layer norm of every layer; all members have it."""

    def __init__(self, layout: MLPLayout, params: Blocks, grads: Blocks) -> None:
        self._layers = [LayerNorm(layout, layer, params, grads) for layer in range(layout.depth)]

    def replace(self, slot: int, network: MLP) -> None:
        """Reset a slot for another network."""
        for norm in self._layers:
            norm.replace(slot, network)

    def begin(self) -> None:
        """Do nothing."""

    def forward(self, layer: int, z: Tensor) -> Tensor:
        """Standardize a layer's z, [N, S, W], in place; return the output: [S, N, W]."""
        self._layers[layer].forward(z.transpose(0, 1))
        return self._layers[layer].output

    def output(self, layer: int) -> Tensor:
        """Return what `forward` returned for a layer."""
        return self._layers[layer].output

    def backward(self, layer: int, z: Tensor, grad: Tensor) -> None:
        """Turn the gradient of a layer's output, [N, S, W], into that of its input, in place."""
        self._layers[layer].backward(z.transpose(0, 1), grad.transpose(0, 1))

    def end(self) -> None:
        """Do nothing: each layer has written its gradients."""

    def evaluate(self, layer: int, z: Tensor) -> None:
        """Normalize z [S, rows, W] in place."""
        self._layers[layer].evaluate(z)


def static_norm(layout: MLPLayout, params: Blocks, grads: Blocks) -> StaticNorm | None:
    """Return the norm of all layers; None where no member has one."""
    if not layout.normed[0]:
        return None
    kind = StaticLayerNorm if layout.networks[0].norm == "layer" else StaticBatchNorm
    return kind(layout, params, grads)
