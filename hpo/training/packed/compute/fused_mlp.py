"""The gradients of stacked MLPs by torch's matrix products with one kernel of Triton between two of them.

It computes what `StaticMLPs.compute_gradients` does, on the same memory: either way can take any step.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hpo.training.packed.compute import fused_batch_kernels as batch_kernels
from hpo.training.packed.compute import fused_layer_kernels as layer_kernels
from hpo.training.packed.compute.masks import StackedRules
from hpo.training.packed.compute.static_mlp import StaticMLPs
from hpo.training.packed.compute.static_norms import StaticBatchNorm, StaticLayerNorm

MOST_ROWS = 2048
"""Largest batch: a program holds all rows of some units. With more, launching kernels is a small part of a step."""
TILE = 8192
"""Most numbers that a program of a layer or of the loss holds at once."""
PER_WARP = 256
"""Numbers of these for each warp, 8 for each thread: the code of each activation is unrolled over them."""


class Batches(NamedTuple):
    """What an epoch's steps read and write at the step counter."""

    data: Tensor
    """All training rows: [rows, F]."""
    rows: Tensor
    """Rows and labels of each step's batch: [steps, 2, S, N]."""
    logits: Tensor
    """[steps, S, N, C]."""
    counter: Tensor
    """Number of the step: [1]."""


class _Layer(NamedTuple):
    """The arguments of a layer's kernels."""

    inputs: tuple[Any, ...]
    running: Tensor | None
    saved: Tensor | None
    rules: tuple[Any, ...]
    dropout: tuple[Any, ...]
    constants: dict[str, Any]


class FusedMLPs:
    """Forward and backward passes of stacked MLPs without layer norm."""

    def __init__(self, network: StaticMLPs, batches: Batches, rules: StackedRules | None) -> None:
        """`rules` are those of dropout, None where no member has it."""
        self.network, self.batches = network, batches
        layout = network.layout
        self._slots, self._rows, self._width = layout.slots, layout.batch, layout.widths[0]
        rows = power_of_two(self._rows)
        units = min(32, power_of_two(self._width), max(1, TILE // rows))
        sites = {site.index: number for number, site in enumerate(network.sites)}
        self._layers = [self._layer(layer, rows, units, rules, sites.get(layer)) for layer in range(layout.depth)]
        self._grid = (self._slots, -(-self._width // units))

    def _layer(self, layer: int, rows: int, units: int, rules: StackedRules | None, site: int | None) -> _Layer:
        network, layout = self.network, self.network.layout
        norm = network.norm if isinstance(network.norm, StaticBatchNorm) else None
        scale, shift = (
            network.params.vector(f"{name}{layer}", self._slots) if norm is not None else None
            for name in ("scale", "shift")
        )
        dropout: tuple[Any, ...] = (None, 0, None, None)
        if rules is not None and site is not None:
            drawn = rules.bytes[:, site]
            dropout = (drawn, drawn.stride(0), rules.thresholds[site], rules.scales[site])
        return _Layer(
            (network.linear[layer], network.bias[layer], scale, shift, network.params.vectors.stride(0)),
            norm.running[2 * layer : 2 * layer + 2] if norm is not None else None,
            norm.saved[layer] if norm is not None else None,
            (
                norm.has_number if norm is not None else None,
                network.activations,
                network.is_last[layer],
            ),
            (*dropout, self.batches.counter),
            {
                "N": layout.batch,
                "ROWS": rows,
                "UNITS": units,
                "NORMED": norm is not None,
                "DROPS": site is not None,
                "num_warps": warps(rows * units),
            },
        )

    def __call__(self) -> None:
        """Write the gradients of the step at the counter to `grads`, and its logits to their place."""
        self._gather()
        network = self.network
        x = network.x
        for layer, weights in enumerate(network.weights):
            torch.bmm(x, weights.transpose(1, 2), out=network.linear[layer].transpose(0, 1))
            self._forward(layer)
            x = network.outputs[layer].transpose(0, 1)
        last, last_grad = network.last.transpose(0, 1), network.last_grad.transpose(0, 1)
        torch.bmm(last, network.output.transpose(1, 2), out=network.logits)
        self._loss()
        torch.bmm(network.logits_grad.transpose(1, 2), last, out=network.output_grad)
        torch.bmm(network.logits_grad, network.output, out=last_grad)
        for layer in reversed(range(len(self._layers))):
            self._backward(layer)
            grad = network.grad[layer].transpose(0, 1)
            x = network.outputs[layer - 1].transpose(0, 1) if layer else network.x
            torch.bmm(grad.transpose(1, 2), x, out=network.weight_grads[layer])
            if layer:
                torch.bmm(grad, network.weights[layer], out=network.grad[layer - 1].transpose(0, 1))

    def _gather(self) -> None:
        batches, pairs, features = self.batches, self._slots * self._rows, self.network.layout.features
        columns = min(128, power_of_two(features))
        rows = max(1, 1024 // columns)
        batch_kernels.gather[-(-pairs // rows), -(-features // columns)](
            batches.data,
            batches.rows,
            batches.counter,
            self.network.x,
            pairs,
            features,
            ROWS=rows,
            COLUMNS=columns,
        )

    def _forward(self, layer: int) -> None:
        network, its = self.network, self._layers[layer]
        layer_kernels.layer_forward[self._grid](
            *its.inputs,
            its.running,
            its.saved,
            *its.rules,
            *its.dropout,
            network.units[layer] if network.units is not None else None,
            network.outputs[layer],
            network.last,
            self._slots,
            self._width,
            **its.constants,
            MASKED=network.units is not None,
        )

    def _backward(self, layer: int) -> None:
        network, its = self.network, self._layers[layer]
        names = ("bias", "scale", "shift") if its.constants["NORMED"] else ("bias",)
        grads = [network.grads.vector(f"{name}{layer}", self._slots) for name in names]
        layer_kernels.layer_backward[self._grid](
            *its.inputs,
            its.saved,
            *its.rules,
            *its.dropout,
            network.last_grad,
            network.grad[layer],
            *grads,
            *[None] * (3 - len(grads)),
            self._slots,
            self._width,
            **its.constants,
            TOP=layer == len(self._layers) - 1,
        )

    def _loss(self) -> None:
        network, batches = self.network, self.batches
        classes = network.layout.classes
        columns = power_of_two(classes)
        rows = min(power_of_two(self._rows), max(1, TILE // columns))
        batch_kernels.loss[(self._slots,)](
            network.logits,
            network.output_bias,
            network.params.vectors.stride(0),
            batches.rows,
            batches.counter,
            network.loss.smooth,
            network.loss.weights,
            network.logits_grad,
            network.output_bias_grad,
            batches.logits,
            self._slots,
            N=self._rows,
            C=classes,
            ROWS=rows,
            CLASSES=columns,
            WEIGHTED=network.loss.weights is not None,
            num_warps=warps(rows * columns),
        )


def can_fuse(network: StaticMLPs) -> bool:
    """Return whether this is for such networks: no layer norm, and 2 to `MOST_ROWS` rows."""
    return not isinstance(network.norm, StaticLayerNorm) and 2 <= network.layout.batch <= MOST_ROWS


def power_of_two(number: int) -> int:
    """Return the smallest power of two that is no less than a number."""
    return int(1 << (number - 1).bit_length())


def warps(numbers: int) -> int:
    """Return with how many warps a program holds so many numbers, which are a power of two."""
    return max(1, min(16, numbers // PER_WARP))
