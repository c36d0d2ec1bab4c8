"""The multilayer perceptrons of all slots as one: gradients by explicit formulas, and evaluation."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hpo.config import MLP
from hpo.training.packed.compute.layers import HiddenLayer
from hpo.training.packed.compute.loss import Loss
from hpo.training.packed.compute.masks import Drop, Site, dropped_at
from hpo.training.packed.compute.memory import chunk_rows
from hpo.training.packed.layout.blocks import Blocks
from hpo.training.packed.layout.mlp import Group, MLPLayout


class _Output(NamedTuple):
    """The output layers of a group."""

    group: Group
    part: slice
    """The slots of the group."""
    weights: Tensor
    grad: Tensor


class MLPs:
    """The stacked networks of a layout: a `PackedNetwork`."""

    def __init__(self, layout: MLPLayout, smoothing: Sequence[float], dtype: torch.dtype, device: torch.device) -> None:
        """`smoothing` is the label smoothing of each slot."""
        self.layout = layout
        self.params, self.grads = Blocks(layout, dtype, device), Blocks(layout, dtype, device)
        self.layers = [HiddenLayer(layout, i, self.params, self.grads) for i in range(layout.depth)]
        matrices = self.params.matrices, self.grads.matrices
        self.outputs = [_Output(g, slice(g.start, g.stop), *(m[g.output] for m in matrices)) for g in layout.groups]
        self.bias, self.bias_grad = (b.vector("output", layout.slots) for b in (self.params, self.grads))
        self.loss = Loss(layout, smoothing, self.params.vectors)
        self.x = torch.zeros(layout.slots, layout.batch, layout.features, dtype=dtype, device=device)
        self.logits = torch.zeros(layout.slots, layout.batch, layout.classes, dtype=dtype, device=device)
        self.logits_grad = torch.zeros_like(self.logits)
        dropping = [layer for layer in self.layers if self._drops(layer)]
        self.sites = [Site(layer.index, layer.with_dropout(), drop_of(layer.index)) for layer in dropping]

    def _drops(self, layer: HiddenLayer) -> bool:
        return any(layer.index in dropped_at(network) for network in self.layout.networks[: layer.count])

    def replace(self, slot: int) -> None:
        """Reset a slot to the network that its layout now has there, untrained."""
        for layer in self.layers:
            layer.replace(slot, self.layout.networks[slot])

    def statistics(self, slot: int, running: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
        """Return views of a member's running statistics, or of tensors like those, by the plain network's names."""
        network, tensors = self.layout.networks[slot], running or self.running()
        statistics: dict[str, Tensor] = {}
        if network.norm != "batch":
            return statistics
        normed = [layer.index for layer in self.layers if layer.norm is not None]
        for index, mean, variance in zip(normed, tensors[::2], tensors[1::2], strict=True):
            if index < len(network.widths):
                name, width = f"hidden.{index}.norm.", network.widths[index]
                statistics[f"{name}running_mean"] = mean[slot, :width]
                statistics[f"{name}running_var"] = variance[slot, :width]
        return statistics

    def running(self) -> list[Tensor]:
        """Return the running statistics of all slots."""
        norms = [layer.norm for layer in self.layers if layer.norm is not None]
        return [values for norm in norms for values in norm.statistics()]

    def compute_gradients(self, data: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        """Write the gradients of each member's mean loss to `grads`; return the logits, [S, N, C]."""
        torch.index_select(data, 0, rows.flatten(), out=self.x.view(-1, self.layout.features))
        h = self.x
        for layer in self.layers:
            h = layer.forward(h[: layer.count])
        for group, part, weights, _ in self.outputs:
            inputs = self.layers[group.depth - 1].output[part]
            torch.baddbmm(self.bias[part].unsqueeze(1), inputs, weights.transpose(1, 2), out=self.logits[part])
        self.loss.backward(self.logits, labels, self.logits_grad)
        for group, part, weights, grad in self.outputs:
            layer = self.layers[group.depth - 1]
            torch.bmm(self.logits_grad[part].transpose(1, 2), layer.output[part], out=grad)
            torch.bmm(self.logits_grad[part], weights, out=layer.grad[part])
        torch.sum(self.logits_grad, 1, out=self.bias_grad)
        for index in reversed(range(len(self.layers))):
            layer, below = self.layers[index], self.layers[index - 1] if index else None
            if below is None:
                layer.backward(self.x, None)
            else:
                layer.backward(below.output[: layer.count], below.grad[: layer.count])
        return self.logits

    def evaluate(self, x: Tensor) -> Tensor:
        """Return every member's logits for the same rows x [rows, F], in evaluation mode: [S, rows, C]."""
        layout = self.layout
        rows = chunk_rows(layout.slots * max(layout.widths), x)
        logits = x.new_empty(layout.slots, len(x), layout.classes)
        for start in range(0, len(x), rows):
            self._evaluate(x[start : start + rows], logits[:, start : start + rows])
        return logits

    def _evaluate(self, x: Tensor, logits: Tensor) -> None:
        h = x.unsqueeze(0).expand(self.layout.slots, -1, -1)
        for layer in self.layers:
            h = layer.evaluate(h[: layer.count])
            for group, part, weights, _ in self.outputs:
                if group.depth == layer.index + 1:
                    logits[part] = torch.baddbmm(self.bias[part].unsqueeze(1), h[part], weights.transpose(1, 2))


def drop_of(layer: int) -> Callable[[MLP], Drop]:
    """Return a function for the dropout of a network at a hidden layer."""

    def drop(network: MLP) -> Drop:
        if layer >= len(network.widths):
            return Drop(0.0, 0, 0)
        return Drop(network.dropout[layer], network.widths[layer], sum(rate > 0 for rate in network.dropout[:layer]))

    return drop
