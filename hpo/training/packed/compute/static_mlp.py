"""Multilayer perceptrons whose step is the fewest kernels, the same for all members: for a GPU.

Where launching a kernel takes longer than its arithmetic, masks are cheaper than cases: every slot has every layer, and
a member of fewer layers has zeros in the rest. So no layer is computed by depth, and the slots of one activation are
neighbours. Batch norm is torch's own, over the units of all slots as its channels.

Shapes: L layers, S slots, N rows of a batch, W the padded width, I the inputs of a layer, C classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.config import CNN, MLP
from hpo.training.packed.compute.layers import BACKWARD, CODES, FORWARD
from hpo.training.packed.compute.loss import Loss
from hpo.training.packed.compute.masks import Site, dropped_at
from hpo.training.packed.compute.memory import chunk_rows
from hpo.training.packed.compute.mlp import drop_of
from hpo.training.packed.compute.static_norms import StaticBatchNorm, StaticNorm, static_norm
from hpo.training.packed.layout.blocks import Blocks
from hpo.training.packed.layout.mlp import MLPLayout


class StaticMLPs:
    """The stacked networks of a layout with static shapes: a `PackedNetwork`."""

    def __init__(self, layout: MLPLayout, smoothing: Sequence[float], dtype: torch.dtype, device: torch.device) -> None:
        """`smoothing` is the label smoothing of each slot."""
        self.layout = layout
        slots, rows, depth, width = layout.slots, layout.batch, layout.depth, layout.widths[0]

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.params, self.grads = Blocks(layout, dtype, device), Blocks(layout, dtype, device)
        self.weights, self.weight_grads = (
            [blocks.matrices[f"hidden{i}"] for i in range(depth)] for blocks in (self.params, self.grads)
        )
        self.bias = [self.params.vector(f"bias{i}", slots).unsqueeze(1) for i in range(depth)]
        self._bias_grads = self.grads.vectors[:, : depth * width].view(slots, depth, width).transpose(0, 1)
        self.output, self.output_grad = (b.matrices[layout.groups[0].output] for b in (self.params, self.grads))
        self.output_bias, self.output_bias_grad = (b.vector("output", slots) for b in (self.params, self.grads))
        self.loss = Loss(layout, smoothing, self.params.vectors)
        self.norm: StaticNorm | None = static_norm(layout, self.params, self.grads)
        self.x = zeros(slots, rows, layout.features)
        self.linear, self.grad, self.outputs = (zeros(depth, rows, slots, width) for _ in range(3))
        """Results of the linear maps, gradients, and outputs of the layers: [L, N, S, W]."""
        dropped = sorted({index for network in layout.networks for index in dropped_at(network)})
        self.masks = torch.ones(len(dropped), rows, slots, width, dtype=dtype, device=device)
        """Dropout masks of the layers that have any: [layers, N, S, W]."""
        self._mask = dict(zip(dropped, self.masks, strict=True))
        self.sites = [Site(index, mask.transpose(0, 1), drop_of(index)) for index, mask in self._mask.items()]
        self._activated = [zeros(rows, slots, width) if i in self._mask else self.outputs[i] for i in range(depth)]
        self.activations = torch.zeros(slots, dtype=torch.int32, device=device)
        """The activation of each slot as its code: [S]."""
        sigmoid = any(network.activation == "sigmoid" for network in layout.networks)
        self.units = zeros(depth, slots, width) if sigmoid else None
        """1 for a member's units, 0 for padding: [L, S, W]. None if padding is zero without it."""
        self.last, self.last_grad = zeros(rows, slots, width), zeros(rows, slots, width)
        """Output of each member's own last hidden layer, and its gradient: [N, S, W]."""
        self.is_last = zeros(depth, 1, slots, 1)
        self._last_rows = torch.zeros(rows, slots, dtype=torch.int64, device=device)
        """Where each row of `last` is in `outputs`."""
        self.logits, self.logits_grad = zeros(slots, rows, layout.classes), zeros(slots, rows, layout.classes)
        for slot in range(slots):
            self.replace(slot)

    def replace(self, slot: int) -> None:
        """Reset a slot to the network that its layout now has there, untrained."""
        network, (rows, slots) = self.layout.networks[slot], self._last_rows.shape
        last = len(network.widths) - 1
        self.activations[slot] = CODES[network.activation]
        self.runs = list(self.layout.runs(slots))
        self.is_last[:, :, slot] = 0.0
        self.is_last[last, :, slot] = 1.0
        places = torch.arange(rows, device=self._last_rows.device) * slots
        self._last_rows[:, slot] = places + (last * rows * slots + slot)
        if self.units is not None:
            self.units[:, slot] = 0.0
            for layer, width in enumerate(network.widths):
                self.units[layer, slot, :width] = 1.0
        if self.norm is not None:
            self.norm.replace(slot, network)

    def can_mask(self, network: MLP | CNN) -> bool:
        """Return whether padding stays zero under the activation of a network."""
        return network.activation != "sigmoid" or self.units is not None

    def statistics(self, slot: int, running: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
        """Return views of a member's running statistics, or of tensors like those, by the plain network's names."""
        network, tensors = self.layout.networks[slot], running or self.running()
        statistics: dict[str, Tensor] = {}
        if network.norm != "batch":
            return statistics
        for index, width in enumerate(network.widths):
            for number, name in enumerate(("mean", "var")):
                statistics[f"hidden.{index}.norm.running_{name}"] = tensors[0][slot, 2 * index + number, :width]
        return statistics

    def running(self) -> list[Tensor]:
        """Return the running means and variances of all layers in turn: [S, 2 L, W], if there is batch norm."""
        return [self.norm.running.transpose(0, 1)] if isinstance(self.norm, StaticBatchNorm) else []

    def compute_gradients(self, data: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        """Write the gradients of each member's mean loss over its batch to `grads`; return the logits, [S, N, C]."""
        torch.index_select(data, 0, rows.flatten(), out=self.x.view(-1, self.layout.features))
        self._forward()
        self.loss.backward(self.logits, labels, self.logits_grad)
        self._backward()
        return self.logits

    def _forward(self) -> None:
        if self.norm is not None:
            self.norm.begin()
        x = self.x
        for layer, bias in enumerate(self.bias):
            linear = self.linear[layer]
            torch.baddbmm(bias, x, self.weights[layer].transpose(1, 2), out=linear.transpose(0, 1))
            activated = self._activated[layer]
            self._activate(self._activation_input(layer), activated.transpose(0, 1), layer)
            if layer in self._mask:
                torch.mul(activated, self._mask[layer], out=self.outputs[layer])
            x = self.outputs[layer].transpose(0, 1)
        width = self.outputs.shape[-1]
        torch.index_select(self.outputs.view(-1, width), 0, self._last_rows.flatten(), out=self.last.view(-1, width))
        last = self.last.transpose(0, 1)
        torch.baddbmm(self.output_bias.unsqueeze(1), last, self.output.transpose(1, 2), out=self.logits)

    def _activation_input(self, layer: int) -> Tensor:
        """Return the input of a layer's activation, normalized where a member has it: [S, N, W]."""
        linear = self.linear[layer]
        return linear.transpose(0, 1) if self.norm is None else self.norm.forward(layer, linear)

    def _activate(self, u: Tensor, h: Tensor, layer: int) -> None:
        for name, start, stop in self.runs:
            FORWARD[name](u[start:stop], h[start:stop])
        if self.units is not None:
            h.mul_(self.units[layer].unsqueeze(1))

    def _backward(self) -> None:
        last, last_grad = self.last.transpose(0, 1), self.last_grad.transpose(0, 1)
        torch.bmm(self.logits_grad.transpose(1, 2), last, out=self.output_grad)
        torch.sum(self.logits_grad, 1, out=self.output_bias_grad)
        torch.bmm(self.logits_grad, self.output, out=last_grad)
        torch.mul(self.last_grad, self.is_last, out=self.grad)
        for layer in reversed(range(self.layout.depth)):
            grad = self.grad[layer]
            if layer in self._mask:
                grad.mul_(self._mask[layer])
            u = self.linear[layer].transpose(0, 1) if self.norm is None else self.norm.output(layer)
            slots_first, activated = grad.transpose(0, 1), self._activated[layer].transpose(0, 1)
            for name, start, stop in self.runs:
                BACKWARD[name](slots_first[start:stop], u[start:stop], activated[start:stop])
            if self.norm is not None:
                self.norm.backward(layer, self.linear[layer], grad)
            x = self.outputs[layer - 1].transpose(0, 1) if layer else self.x
            torch.bmm(slots_first.transpose(1, 2), x, out=self.weight_grads[layer])
            if layer:
                self.grad[layer - 1].transpose(0, 1).baddbmm_(slots_first, self.weights[layer])
        if self.norm is not None:
            self.norm.end()
        torch.sum(self.grad, 1, out=self._bias_grads)

    def evaluate(self, x: Tensor) -> Tensor:
        """Return every member's logits for the same rows x [rows, F], in evaluation mode: [S, rows, C]."""
        rows = chunk_rows(self.layout.slots * max(self.layout.widths[0], self.layout.features), x)
        return torch.cat([self._evaluate(part) for part in torch.split(x, rows)], 1)

    def _evaluate(self, x: Tensor) -> Tensor:
        h = x.unsqueeze(0).expand(self.layout.slots, -1, -1)
        last: Tensor | None = None
        for layer, bias in enumerate(self.bias):
            u = torch.baddbmm(bias, h, self.weights[layer].transpose(1, 2))
            if self.norm is not None:
                self.norm.evaluate(layer, u)
            h = torch.empty_like(u)
            self._activate(u, h, layer)
            last = h if last is None else torch.where(self.is_last[layer].view(-1, 1, 1) > 0, h, last)
        assert last is not None
        return torch.baddbmm(self.output_bias.unsqueeze(1), last, self.output.transpose(1, 2))
