"""Batch norm and layer norm of all slots at once, forward and backward, in place.

Shapes: S slots, N rows, W the padded width. The formulas are those of the plain network's modules.
"""

import torch
from torch import Tensor

from hpo.config import MLP
from hpo.training.packed.layout.blocks import Blocks
from hpo.training.packed.layout.mlp import MLPLayout

MOMENTUM, EPS = 0.1, 1e-5
"""The defaults of `nn.BatchNorm1d`; `nn.LayerNorm` has the same eps."""


class BatchNorm:
    """Batch norm of each member with its own statistics; the values of members without it stay unchanged."""

    def __init__(self, layout: MLPLayout, layer: int, params: Blocks, grads: Blocks) -> None:
        count, width, self.rows = layout.counts[layer], layout.widths[layer], layout.batch
        like = params.vectors
        self.scale, self.shift = (params.vector(f"{name}{layer}", count) for name in ("scale", "shift"))
        self.scale_grad, self.shift_grad = (grads.vector(f"{name}{layer}", count) for name in ("scale", "shift"))
        self.has = torch.zeros(count, 1, dtype=like.dtype, device=like.device)
        """1 for a member with batch norm, else 0: [S, 1]."""
        self._has_not = 1.0 - self.has
        self.all = all(n.norm == "batch" for n in layout.networks[:count]) and not layout.static_shapes
        self.running_mean = torch.zeros(count, width, dtype=like.dtype, device=like.device)
        self.running_var = torch.ones_like(self.running_mean)
        self.output = torch.zeros(count, self.rows, width, dtype=like.dtype, device=like.device)
        self._work = torch.zeros_like(self.output)
        self._inverse = torch.zeros_like(self.running_mean)
        self._gain = torch.zeros_like(self.running_mean)

    def replace(self, slot: int, network: MLP) -> None:
        """Reset a slot for another network, with initial statistics."""
        self.has[slot] = network.norm == "batch"
        self._has_not[slot] = network.norm != "batch"
        self.running_mean[slot], self.running_var[slot] = 0.0, 1.0

    def statistics(self) -> list[Tensor]:
        """Return running mean and variance: [S, W] each."""
        return [self.running_mean, self.running_var]

    def forward(self, z: Tensor) -> None:
        """Standardize z [S, N, W] in place; write the scaled and shifted values to `output`."""
        # Two sums: on a CPU, torch.var_mean over a middle dimension takes many times as long.
        mean = torch.sum(z, 1).div_(self.rows)
        self.running_mean.lerp_(mean, MOMENTUM)
        torch.sub(z, mean.unsqueeze(1), out=self._work)
        variance = torch.sum(self._work.mul_(self._work), 1).div_(self.rows)
        self.running_var.mul_(1 - MOMENTUM).add_(variance, alpha=MOMENTUM * self.rows / (self.rows - 1))
        torch.rsqrt(variance.add_(EPS), out=self._inverse)
        if not self.all:
            mean.mul_(self.has)
            self._inverse.sub_(1.0).mul_(self.has).add_(1.0)
        z.sub_(mean.unsqueeze(1)).mul_(self._inverse.unsqueeze(1))
        torch.addcmul(self.shift.unsqueeze(1), z, self._full_scale().unsqueeze(1), out=self.output)

    def _full_scale(self) -> Tensor:
        """Return the scale, and 1 for members without the norm, whose scale is stored as 0."""
        return self.scale if self.all else torch.add(self.scale, self._has_not, out=self._gain)

    def backward(self, standardized: Tensor, grad: Tensor) -> None:
        """Turn the gradient of the output into that of the input, in place; write those of scale and shift."""
        torch.sum(grad, 1, out=self.shift_grad)
        torch.sum(torch.mul(grad, standardized, out=self._work), 1, out=self.scale_grad)
        if not self.all:
            self.shift_grad.mul_(self.has)
            self.scale_grad.mul_(self.has)
        grad.addcmul_(standardized, self.scale_grad.unsqueeze(1), value=-1 / self.rows)
        grad.sub_(self.shift_grad.unsqueeze(1), alpha=1 / self.rows)
        grad.mul_(torch.mul(self._full_scale(), self._inverse, out=self._gain).unsqueeze(1))

    def evaluate(self, z: Tensor) -> None:
        """Normalize z [S, rows, W] by the running statistics, in place."""
        mean, inverse = self.running_mean, torch.rsqrt(self.running_var + EPS)
        if not self.all:
            mean, inverse = mean * self.has, (inverse - 1.0) * self.has + 1.0
        z.sub_(mean.unsqueeze(1)).mul_((inverse * self._full_scale()).unsqueeze(1)).add_(self.shift.unsqueeze(1))


class LayerNorm:
    """Layer norm over the units of each member, without padding; all members have it."""

    def __init__(self, layout: MLPLayout, layer: int, params: Blocks, grads: Blocks) -> None:
        count, width, like = layout.counts[layer], layout.widths[layer], params.vectors
        self._layer = layer
        self.scale, self.shift = (params.vector(f"{name}{layer}", count).unsqueeze(1) for name in ("scale", "shift"))
        self.scale_grad, self.shift_grad = (grads.vector(f"{name}{layer}", count) for name in ("scale", "shift"))
        self.units = torch.zeros(count, 1, width, dtype=like.dtype, device=like.device)
        """1 for a member's units, 0 for padding: [S, 1, W]."""
        self._share = torch.ones(count, 1, 1, dtype=like.dtype, device=like.device)
        """Weight of one unit in a member's mean: [S, 1, 1]."""
        self.output = torch.zeros(count, layout.batch, width, dtype=like.dtype, device=like.device)
        self._work = torch.zeros_like(self.output)
        self._inverse = torch.zeros(count, layout.batch, 1, dtype=like.dtype, device=like.device)

    def replace(self, slot: int, network: MLP) -> None:
        """Reset a slot for another network."""
        self.units[slot] = 0.0
        if self._layer < len(network.widths):
            width = network.widths[self._layer]
            self.units[slot, :, :width] = 1.0
            self._share[slot] = 1 / width

    def statistics(self) -> list[Tensor]:
        """Return nothing: layer norm has no running statistics."""
        return []

    def forward(self, z: Tensor) -> None:
        """Standardize z [S, N, W] in place; write the scaled and shifted values to `output`."""
        self._inverse.copy_(self._standardized(z, self._work))
        torch.addcmul(self.shift, z, self.scale, out=self.output)

    def _standardized(self, z: Tensor, work: Tensor) -> Tensor:
        """Standardize z, [S, rows, W], in place; return the inverse standard deviation: [S, rows, 1]."""
        z.sub_(z.sum(2, keepdim=True).mul_(self._share)).mul_(self.units)
        variance = torch.mul(z, z, out=work).sum(2, keepdim=True).mul_(self._share)
        inverse = variance.add_(EPS).rsqrt_()
        z.mul_(inverse)
        return inverse

    def backward(self, standardized: Tensor, grad: Tensor) -> None:
        """Turn the gradient of the output into that of the input, in place; write those of scale and shift."""
        torch.sum(grad, 1, out=self.shift_grad)
        torch.sum(torch.mul(grad, standardized, out=self._work), 1, out=self.scale_grad)
        grad.mul_(self.scale)
        mean = grad.sum(2, keepdim=True).mul_(self._share)
        along = torch.mul(grad, standardized, out=self._work).sum(2, keepdim=True).mul_(self._share)
        grad.addcmul_(standardized, along, value=-1).sub_(mean).mul_(self._inverse).mul_(self.units)

    def evaluate(self, z: Tensor) -> None:
        """Normalize z [S, rows, W] in place."""
        self._standardized(z, torch.empty_like(z))
        z.mul_(self.scale).add_(self.shift)


def norm_of(layout: MLPLayout, layer: int, params: Blocks, grads: Blocks) -> BatchNorm | LayerNorm | None:
    """Return the norm of a layer; None where no member has one."""
    if not layout.normed[layer]:
        return None
    kind = LayerNorm if layout.networks[0].norm == "layer" else BatchNorm
    return kind(layout, layer, params, grads)
