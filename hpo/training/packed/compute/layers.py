"""A hidden layer of all slots at once, forward and backward, by explicit formulas: no autograd, no allocation.

Shapes: S slots, N rows of a batch, W the padded width, I the padded inputs, C classes. Every formula is that of the
plain network's modules; the tests compare with those and with autograd.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hpo.config import MLP
from hpo.training.packed.compute.norms import norm_of
from hpo.training.packed.layout.blocks import Blocks
from hpo.training.packed.layout.mlp import MLPLayout

_SLOPE = 0.01
"""The default slope of `nn.LeakyReLU`."""
_aten = torch.ops.aten

Kernel = Callable[[Tensor, Tensor], object]
FORWARD: dict[str, Kernel] = {  # (input, output)
    "relu": lambda u, h: torch.clamp_min(u, 0.0, out=h),
    "leaky_relu": lambda u, h: _aten.leaky_relu.out(u, _SLOPE, out=h),
    "gelu": lambda u, h: _aten.gelu.out(u, out=h),
    "tanh": lambda u, h: torch.tanh(u, out=h),
    "sigmoid": lambda u, h: torch.sigmoid(u, out=h),
}
BACKWARD: dict[str, Callable[[Tensor, Tensor, Tensor], object]] = {  # (gradient, overwritten; input; output)
    "relu": lambda d, u, h: _aten.threshold_backward.grad_input(d, u, 0.0, grad_input=d),
    "leaky_relu": lambda d, u, h: _aten.leaky_relu_backward.grad_input(
        d, u, _SLOPE, self_is_result=False, grad_input=d
    ),
    "gelu": lambda d, u, h: _aten.gelu_backward.grad_input(d, u, grad_input=d),
    "tanh": lambda d, u, h: _aten.tanh_backward.grad_input(d, h, grad_input=d),
    "sigmoid": lambda d, u, h: _aten.sigmoid_backward.grad_input(d, h, grad_input=d),
}
CODES = {name: code for code, name in enumerate(FORWARD)}
"""The number of each activation, by which a kernel of Triton knows it."""


class HiddenLayer:
    """Linear map, norm where a member has it, activation and dropout, of the slots that have this layer."""

    def __init__(self, layout: MLPLayout, layer: int, params: Blocks, grads: Blocks) -> None:
        count, width, rows = layout.counts[layer], layout.widths[layer], layout.batch
        weights = params.matrices[f"hidden{layer}"]

        def buffer(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=weights.dtype, device=weights.device)

        self.count, self.rows, self.index = count, rows, layer
        self.weights, self.weights_grad = weights, grads.matrices[f"hidden{layer}"]
        self.bias, self.bias_grad = (b.vector(f"bias{layer}", count) for b in (params, grads))
        self._bias_rows, self._turned = self.bias.unsqueeze(1), weights.transpose(1, 2)
        self.runs = list(layout.runs(count))
        self.units: Tensor | None = None
        """1 for a member's units, 0 for padding: [S, 1, W]. None if padding is zero without it."""
        if any(name == "sigmoid" for name, _, _ in self.runs):
            self.units = buffer(count, 1, width)
        self.linear, self.activated = buffer(count, rows, width), buffer(count, rows, width)
        self.grad = buffer(count, rows, width)
        """Gradient of the layer's output; the backward pass turns it, in place, into that of its linear map."""
        self.norm = norm_of(layout, layer, params, grads)
        self.dropped: Tensor | None = None
        """Output after dropout, if a member has dropout here."""
        self.mask: Tensor | None = None

        for slot, network in enumerate(layout.networks[:count]):
            self.replace(slot, network)

    def replace(self, slot: int, network: MLP) -> None:
        """Reset a slot for another network, if the slot has this layer."""
        if slot >= self.count:
            return
        if self.units is not None:
            self.units[slot] = 0.0
            self.units[slot, :, : network.widths[self.index]] = 1.0
        if self.norm is not None:
            self.norm.replace(slot, network)

    def with_dropout(self) -> Tensor:
        """Make the layer multiply its output by a mask in training; return the mask: [S, N, W]."""
        self.dropped, self.mask = torch.empty_like(self.activated), torch.ones_like(self.activated)
        return self.mask

    @property
    def input(self) -> Tensor:
        """Input of the activation: [S, N, W]."""
        return self.linear if self.norm is None else self.norm.output

    @property
    def output(self) -> Tensor:
        """Output of the layer: [S, N, W]."""
        return self.activated if self.dropped is None else self.dropped

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer in training mode: [S, N, I] -> [S, N, W]."""
        torch.baddbmm(self._bias_rows, x, self._turned, out=self.linear)
        if self.norm is not None:
            self.norm.forward(self.linear)
        self._activate(self.input, self.activated)
        if self.dropped is not None and self.mask is not None:
            torch.mul(self.activated, self.mask, out=self.dropped)
        return self.output

    def _activate(self, u: Tensor, h: Tensor) -> None:
        for name, start, stop in self.runs:
            FORWARD[name](u[start:stop], h[start:stop])
        if self.units is not None:
            h.mul_(self.units)

    def backward(self, x: Tensor, x_grad: Tensor | None) -> None:
        """Compute, from `grad`, the parameters' gradients and, unless None, that of the layer's input, `x_grad`."""
        grad = self.grad
        if self.mask is not None:
            grad.mul_(self.mask)
        u = self.input
        for name, start, stop in self.runs:
            BACKWARD[name](grad[start:stop], u[start:stop], self.activated[start:stop])
        if self.norm is not None:
            self.norm.backward(self.linear, grad)
        torch.sum(grad, 1, out=self.bias_grad)
        torch.bmm(grad.transpose(1, 2), x, out=self.weights_grad)
        if x_grad is not None:
            torch.bmm(grad, self.weights, out=x_grad)

    def evaluate(self, x: Tensor) -> Tensor:
        """Compute the layer in evaluation mode, for any number of rows: [S, rows, I] -> [S, rows, W]."""
        u = torch.baddbmm(self._bias_rows, x, self._turned)
        if self.norm is not None:
            self.norm.evaluate(u)
        h = torch.empty_like(u)
        self._activate(u, h)
        return h
