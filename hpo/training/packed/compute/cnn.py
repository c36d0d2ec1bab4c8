"""The convolutional networks of all slots as one: grouped convolutions, or unfolded images and batched products.

Shapes: S slots, N rows of a batch, C padded channels of a stage. Images are [N, S * C, H, W], with the channels of each
slot next to each other. Unlike `hpo.training.packed.compute.mlp`, this computes gradients by autograd, whose overhead
is small compared with convolutions.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hpo.config import CNN, Precision
from hpo.training.packed.compute.loss import Loss
from hpo.training.packed.compute.masks import Drop, Site, dropped_at
from hpo.training.packed.compute.memory import chunk_rows
from hpo.training.packed.compute.norms import EPS, MOMENTUM
from hpo.training.packed.layout.blocks import Blocks
from hpo.training.packed.layout.cnn import CNNLayout
from hpo.training.torch_compat import copy_all

ConvImpl = Literal["grouped", "unfolded"]
"""How convolutions are computed; which is faster depends on the device and the shapes."""
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda x: F.max_pool2d(x, 2),
    "avg": lambda x: F.avg_pool2d(x, 2),
    "none": lambda x: x,
}


class CNNs:
    """The stacked networks of a layout: a `PackedNetwork`, with dropout masks and running statistics."""

    def __init__(
        self,
        layout: CNNLayout,
        smoothing: Sequence[float],
        dtype: torch.dtype,
        device: torch.device,
        *,
        conv_impl: ConvImpl = "grouped",
        precision: Precision = "fp32",
    ) -> None:
        """`smoothing` is the label smoothing of each slot."""
        self.layout, self.conv_impl, self.precision = layout, conv_impl, precision
        self.params, self.grads = Blocks(layout, dtype, device), Blocks(layout, dtype, device)
        self._leaves = {name: tensor.detach().requires_grad_() for name, tensor in _by_name(self.params).items()}
        """The parameters as leaves of autograd; they share the memory of `params`."""
        self._grads = _by_name(self.grads)
        self.loss = Loss(layout, smoothing, self.params.vectors)
        self.logits = torch.zeros(layout.slots, layout.batch, layout.classes, dtype=dtype, device=device)
        self.logits_grad = torch.zeros_like(self.logits)
        self.runs = list(layout.runs(layout.slots))
        self.normed = torch.zeros(layout.slots, dtype=torch.bool, device=device)
        self.all_normed = all(n.norm == "batch" for n in layout.networks) and not layout.static_shapes
        self._statistics = self._new_statistics()
        sigmoid = any(name == "sigmoid" for name, _, _ in self.runs)
        widths = (*layout.channels, layout.head_width) if sigmoid else ()
        self._units = [self._ones(layout.slots, width) for width in widths]
        """For each stage and the head, 1 for a member's channels or units, 0 for padding: [S, C]."""
        self._masks = self._new_masks()
        self.sites = [Site(index, mask, _drop_of(index, layout.pixels)) for index, mask in self._masks.items()]
        for slot in range(layout.slots):
            self.replace(slot)

    def _ones(self, *shape: int) -> Tensor:
        return torch.ones(shape, dtype=self.logits.dtype, device=self.logits.device)

    def _new_statistics(self) -> dict[tuple[int, int], tuple[Tensor, Tensor]]:
        """Return running mean and variance for each convolution with a norm, by stage and number: [S, C] each."""
        layout = self.layout
        shapes = {place: (layout.slots, layout.channels[place[0]]) for place in layout.places_of_convs()}
        if not layout.normed:
            return {}
        return {place: (self._ones(*shape).zero_(), self._ones(*shape)) for place, shape in shapes.items()}

    def _new_masks(self) -> dict[int, Tensor]:
        """Return the mask of each stage, and of the head after the last one, at which a member has dropout."""
        layout = self.layout
        dropped = {index for network in layout.networks for index in dropped_at(network)}
        widths = (*layout.channels, layout.features)
        return {i: self._ones(layout.slots, layout.batch, width) for i, width in enumerate(widths) if i in dropped}

    def replace(self, slot: int) -> None:
        """Reset a slot to the network that its layout now has there, untrained."""
        network = self.layout.networks[slot]
        self.normed[slot] = network.norm == "batch"
        for mean, variance in self._statistics.values():
            mean[slot], variance[slot] = 0.0, 1.0
        for units, width in zip(self._units, (*network.channels, network.head_width), strict=False):
            units[slot] = 0.0
            units[slot, :width] = 1.0

    def statistics(self, slot: int, running: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
        """Return views of a member's running statistics, or of tensors like those, by the plain network's names."""
        network, tensors = self.layout.networks[slot], running or self.running()
        statistics: dict[str, Tensor] = {}
        if network.norm != "batch":
            return statistics
        for (stage, conv), mean, variance in zip(self._statistics, tensors[::2], tensors[1::2], strict=True):
            name, channels = f"stages.{stage}.norm{conv}.", network.channels[stage]
            statistics[f"{name}running_mean"] = mean[slot, :channels]
            statistics[f"{name}running_var"] = variance[slot, :channels]
        return statistics

    def running(self) -> list[Tensor]:
        """Return the running statistics of all slots."""
        return [tensor for pair in self._statistics.values() for tensor in pair]

    def compute_gradients(self, data: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        """Write the gradients of each member's mean loss to `grads`; return the logits, [S, N, C]."""
        x = data.index_select(0, rows.t().flatten()).view(rows.shape[1], -1, *data.shape[2:])
        with torch.enable_grad():
            logits = self._forward(x, training=True)
        self.logits.copy_(logits.detach())
        self.loss.backward(self.logits, labels, self.logits_grad)
        grads = torch.autograd.grad(logits, list(self._leaves.values()), self.logits_grad)
        copy_all([self._grads[name] for name in self._leaves], grads)
        return self.logits

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> Tensor:
        """Return every member's logits for the same rows x [rows, C, H, W], in evaluation mode: [S, rows, classes]."""
        layout, pixels = self.layout, x.shape[2] * x.shape[3]
        rows = chunk_rows(layout.slots * layout.channels[0] * pixels, x)
        return torch.cat([self._forward(part, training=False) for part in torch.split(x, rows)], 1)

    def _forward(self, x: Tensor, *, training: bool) -> Tensor:
        """Return logits [S, N, C]. In evaluation x is [N, C, H, W], the same rows for every slot."""
        # Without autocast's cache of cast weights, which must not outlive the recording of a graph.
        enabled = self.precision == "bf16"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=enabled, cache_enabled=False):
            return self._logits(x, training=training).to(x.dtype)

    def _logits(self, x: Tensor, *, training: bool) -> Tensor:
        layout, p = self.layout, self._leaves
        for stage, conv in layout.places_of_convs():
            name = f"{stage}.{conv}"
            groups = layout.slots if training or (stage, conv) != (0, 0) else 1
            x = self._convolved(x, p[f"conv{name}"], p[f"bias{name}"], groups)
            if layout.normed:
                x = self._normalized(x, (stage, conv), training=training)
            x = self._activated(x, stage)
            if conv == layout.convs[stage] - 1:
                x = POOLS[layout.pool[stage]](x)
                if training and stage in self._masks:
                    x = x * self._masks[stage].transpose(0, 1).flatten(1)[:, :, None, None]
        if layout.head == "average":
            x = F.adaptive_avg_pool2d(x, layout.head_size)
        h = x.reshape(len(x), layout.slots, -1).transpose(0, 1)
        if layout.head_width:
            h = torch.baddbmm(p["linear_bias"].unsqueeze(1), h, p["linear"].transpose(1, 2))
            h = self._of_runs(h, 0)
            if self._units:
                h = h * self._units[-1].unsqueeze(1)
        if training and len(layout.channels) in self._masks:
            h = h * self._masks[len(layout.channels)]
        return torch.baddbmm(p["output_bias"].unsqueeze(1), h, p["output"].transpose(1, 2))

    def _convolved(self, x: Tensor, weights: Tensor, bias: Tensor, groups: int) -> Tensor:
        """Convolve: [N, groups * I, H, W] -> [N, S * O, H, W], with weights [S, O, I, k, k]."""
        if self.conv_impl == "grouped" or groups == 1:
            return F.conv2d(x, weights.flatten(0, 1), bias.flatten(), padding=self.layout.kernel // 2, groups=groups)
        (rows, _, height, width), (slots, out) = x.shape, weights.shape[:2]
        pixels = height * width
        patches = F.unfold(x, self.layout.kernel, padding=self.layout.kernel // 2).view(rows, slots, -1, pixels)
        columns = patches.permute(1, 2, 0, 3).reshape(slots, -1, rows * pixels)
        outputs = torch.baddbmm(bias.unsqueeze(2), weights.flatten(2), columns).view(slots, out, rows, pixels)
        return outputs.permute(2, 0, 1, 3).reshape(rows, slots * out, height, width)

    def _normalized(self, x: Tensor, place: tuple[int, int], *, training: bool) -> Tensor:
        """Apply batch norm to every channel; the channels of members without it are returned unchanged."""
        mean, variance = self._statistics[place]
        scale, shift = (self._leaves[f"{name}{place[0]}.{place[1]}"].flatten() for name in ("scale", "shift"))
        normed = F.batch_norm(x, mean.view(-1), variance.view(-1), scale, shift, training, MOMENTUM, EPS)
        if self.all_normed:
            return normed
        has = self.normed.repeat_interleave(mean.shape[1]).view(1, -1, 1, 1)
        return torch.where(has, normed, x)

    def _activated(self, x: Tensor, stage: int) -> Tensor:
        """Apply each slot's activation: [N, S * C, H, W] -> [N, S * C, H, W]."""
        if len(self.runs) == 1:
            x = ACTIVATIONS[self.runs[0][0]](x)
        else:
            x = self._of_runs(x.view(len(x), self.layout.slots, -1, *x.shape[2:]), 1).flatten(1, 2)
        return x * self._units[stage].flatten()[:, None, None] if self._units else x

    def _of_runs(self, x: Tensor, dim: int) -> Tensor:
        """Apply each slot's activation to x, whose dimension `dim` is the slots."""
        parts = [ACTIVATIONS[name](x.narrow(dim, start, stop - start)) for name, start, stop in self.runs]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _drop_of(index: int, pixels: int) -> Callable[[CNN], Drop]:
    """Return a function for the dropout of a network at a stage, or at the head, which takes so many pixels."""
    # Not a method: it would refer to the networks that hold it, and such a cycle keeps a GPU's memory.

    def drop(network: CNN) -> Drop:
        number = sum(rate > 0 for rate in network.dropout[:index])
        if index < len(network.channels):
            return Drop(network.dropout[index], network.channels[index], number)
        units = network.head_width or network.channels[-1] * pixels
        return Drop(network.head_dropout, units, number)

    return drop


def _by_name(blocks: Blocks) -> dict[str, Tensor]:
    """Return all matrices and vectors of blocks, each over all slots."""
    return blocks.matrices | {name: blocks.vector(name, blocks.layout.slots) for name in blocks.layout.vectors}
