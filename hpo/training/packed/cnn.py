"""All slots' convolutional networks as one: grouped convolutions, or unfolded images and batched products.

Shapes: S slots, N rows of a batch, C padded channels of a stage; images lie as [N, S * C, H, W], a slot's channels
side by side. Unlike `hpo.training.packed.mlp` this has autograd find the gradients: around convolutions its own
cost is small.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hpo.config import CNN, Precision
from hpo.training.packed.blocks import Blocks
from hpo.training.packed.cnn_layout import CNNLayout
from hpo.training.packed.loss import Loss
from hpo.training.packed.masks import Drop, Site, dropped_at
from hpo.training.packed.norms import EPS, MOMENTUM

ConvImpl = Literal["grouped", "unfolded"]
"""How convolutions are computed; which is faster depends on the device and the shapes."""
EVALUATION_NUMBERS = 2**21
"""About so many numbers of one layer are held where nothing is learned."""
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
    """The stacked networks of a layout: parameters, gradients, and what dropout and batch norm keep."""

    def __init__(
        self,
        layout: CNNLayout,
        smoothing: Sequence[float],
        dtype: torch.dtype,
        device: torch.device,
        way: ConvImpl = "grouped",
        precision: Precision = "fp32",
    ) -> None:
        """`smoothing` is each member's label smoothing."""
        self.layout, self.way, self.precision = layout, way, precision
        self.params, self.grads = Blocks(layout, dtype, device), Blocks(layout, dtype, device)
        sides = [
            block.matrices | {name: block.vector(name, layout.slots) for name in layout.vectors}
            for block in (self.params, self.grads)
        ]
        self._leaves = {name: tensor.detach().requires_grad_() for name, tensor in sides[0].items()}
        """The parameters as autograd sees them; the same memory."""
        self._grads = sides[1]
        self.loss = Loss(layout, smoothing, self.params.vectors)

        def ones(*shape: int) -> Tensor:
            return torch.ones(shape, dtype=dtype, device=device)

        slots, batch = layout.slots, layout.batch
        self.logits = torch.zeros(slots, batch, layout.classes, dtype=dtype, device=device)
        self.logits_grad = torch.zeros_like(self.logits)
        self.runs = list(layout.runs(slots))
        self.normed = torch.zeros(slots, dtype=torch.bool, device=device)
        self.all_normed = all(n.norm == "batch" for n in layout.networks) and not layout.static_shapes
        self._statistics = {
            place: (torch.zeros_like(ones(slots, layout.channels[place[0]])), ones(slots, layout.channels[place[0]]))
            for place in (layout.places_of_convs() if layout.normed else ())
        }
        sigmoid = any(name == "sigmoid" for name, _, _ in self.runs)
        self._units = [ones(slots, width) for width in (*layout.channels, layout.head_width)] if sigmoid else []
        """1 for a member's own channels of each stage and units of the head, 0 for padding: [S, C]."""
        self.sites: list[Site] = []
        self._masks: dict[int, Tensor] = {}
        """Of each stage, and of the head as the one after the last."""
        for index, width in enumerate((*layout.channels, layout.features)):
            if any(index in dropped_at(network) for network in layout.networks):
                self._masks[index] = ones(slots, batch, width)
                self.sites.append(Site(index, self._masks[index], self._drop_of(index)))
        for slot in range(slots):
            self.replace(slot)

    def _drop_of(self, index: int) -> Callable[[CNN], Drop]:
        def drop(network: CNN) -> Drop:
            number = sum(rate > 0 for rate in network.dropout[:index])
            if index < len(network.channels):
                return Drop(network.dropout[index], network.channels[index], number)
            units = network.head_width or network.channels[-1] * self.layout.pixels
            return Drop(network.head_dropout, units, number)

        return drop

    def replace(self, slot: int) -> None:
        network = self.layout.networks[slot]
        self.normed[slot] = network.norm == "batch"
        for mean, variance in self._statistics.values():
            mean[slot], variance[slot] = 0.0, 1.0
        for units, own in zip(self._units, (*network.channels, network.head_width), strict=False):
            units[slot] = 0.0
            units[slot, :own] = 1.0

    def statistics(self, slot: int) -> dict[str, Tensor]:
        network, found = self.layout.networks[slot], {}
        for (stage, conv), (mean, variance) in self._statistics.items() if network.norm == "batch" else ():
            name, own = f"stages.{stage}.norm{conv}.", network.channels[stage]
            found[f"{name}running_mean"] = mean[slot, :own]
            found[f"{name}running_var"] = variance[slot, :own]
        return found

    def running(self) -> list[Tensor]:
        return [tensor for pair in self._statistics.values() for tensor in pair]

    def learn(self, data: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        x = data.index_select(0, rows.t().flatten()).view(rows.shape[1], -1, *data.shape[2:])
        with torch.enable_grad():
            logits = self._forward(x, training=True)
        self.logits.copy_(logits.detach())
        self.loss.backward(self.logits, labels, self.logits_grad)
        found = torch.autograd.grad(logits, list(self._leaves.values()), self.logits_grad)
        for name, grad in zip(self._leaves, found, strict=True):
            self._grads[name].copy_(grad)
        return self.logits

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> Tensor:
        layout, pixels = self.layout, x.shape[2] * x.shape[3]
        rows = max(16, EVALUATION_NUMBERS // (layout.slots * layout.channels[0] * pixels))
        return torch.cat([self._forward(part, training=False) for part in torch.split(x, rows)], 1)

    def _forward(self, x: Tensor, training: bool) -> Tensor:
        """Return logits [S, N, C]; without training x is [N, C, H, W], the same rows for every slot."""
        # Without autocast's cache of cast weights, which must not outlive the recording of a graph.
        enabled = self.precision == "bf16"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=enabled, cache_enabled=False):
            return self._logits(x, training).to(x.dtype)

    def _logits(self, x: Tensor, training: bool) -> Tensor:
        layout, p = self.layout, self._leaves
        for stage, conv in layout.places_of_convs():
            name = f"{stage}.{conv}"
            groups = layout.slots if training or (stage, conv) != (0, 0) else 1
            x = self._convolved(x, p[f"conv{name}"], p[f"bias{name}"], groups)
            if layout.normed:
                x = self._normalized(x, (stage, conv), training)
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
        """[N, groups * I, H, W] -> [N, S * O, H, W]; weights [S, O, I, k, k]."""
        if self.way == "grouped" or groups == 1:
            return F.conv2d(x, weights.flatten(0, 1), bias.flatten(), padding=self.layout.kernel // 2, groups=groups)
        (rows, _, height, width), (slots, out) = x.shape, weights.shape[:2]
        pixels = height * width
        patches = F.unfold(x, self.layout.kernel, padding=self.layout.kernel // 2).view(rows, slots, -1, pixels)
        columns = patches.permute(1, 2, 0, 3).reshape(slots, -1, rows * pixels)
        found = torch.baddbmm(bias.unsqueeze(2), weights.flatten(2), columns).view(slots, out, rows, pixels)
        return found.permute(2, 0, 1, 3).reshape(rows, slots * out, height, width)

    def _normalized(self, x: Tensor, place: tuple[int, int], training: bool) -> Tensor:
        """Batch norm of every channel; members without it pass through unchanged."""
        mean, variance = self._statistics[place]
        scale, shift = (self._leaves[f"{name}{place[0]}.{place[1]}"].flatten() for name in ("scale", "shift"))
        normed = F.batch_norm(x, mean.view(-1), variance.view(-1), scale, shift, training, MOMENTUM, EPS)
        if self.all_normed:
            return normed
        has = self.normed.repeat_interleave(mean.shape[1]).view(1, -1, 1, 1)
        return torch.where(has, normed, x)

    def _activated(self, x: Tensor, stage: int) -> Tensor:
        """[N, S * C, H, W] -> the same."""
        if len(self.runs) == 1:
            x = ACTIVATIONS[self.runs[0][0]](x)
        else:
            x = self._of_runs(x.view(len(x), self.layout.slots, -1, *x.shape[2:]), 1).flatten(1, 2)
        return x * self._units[stage].flatten()[:, None, None] if self._units else x

    def _of_runs(self, x: Tensor, dim: int) -> Tensor:
        """Apply each slot's activation; the slots are along `dim`."""
        parts = [ACTIVATIONS[name](x.narrow(dim, start, stop - start)) for name, start, stop in self.runs]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
