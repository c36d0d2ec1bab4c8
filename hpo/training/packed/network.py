"""All slots' networks as one: a training step's gradients, and evaluation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.training.packed.layers import HiddenLayer
from hpo.training.packed.layout import Blocks, Layout

EVALUATION_NUMBERS = 2**20
"""About so many activations of one layer are held where nothing is learned."""


class Network:
    """The stacked networks of a layout: parameters, gradients, and the buffers between."""

    def __init__(self, layout: Layout, smoothing: Sequence[float], dtype: torch.dtype, device: torch.device) -> None:
        """`smoothing` is each member's label smoothing."""
        self.layout = layout
        self.params, self.grads = Blocks(layout, dtype, device), Blocks(layout, dtype, device)
        self.layers = [HiddenLayer(layout, i, self.params, self.grads) for i in range(layout.depth)]
        self.bias, self.bias_grad = (b.vector("output", layout.slots) for b in (self.params, self.grads))
        self.logits = torch.zeros(layout.slots, layout.batch, layout.classes, dtype=dtype, device=device)
        self.logits_grad = torch.zeros_like(self.logits)
        self._smooth = torch.tensor(list(smoothing), dtype=dtype, device=device).view(-1, 1, 1)
        self._spread = self._smooth / layout.classes if any(smoothing) else None
        """What each class gets of the target whatever the label is."""
        self._hit = (self._smooth - 1.0).expand(-1, layout.batch, 1)
        self._weights: Tensor | None = None
        """Of each class in each member's loss, if any member has them: [S, C]."""

    def weigh(self, weights: Tensor, weighed: Sequence[bool]) -> None:
        """Have the loss of some members weigh each row by its class: weights [C]."""
        chosen = torch.tensor(list(weighed), device=weights.device).unsqueeze(1)
        self._weights = torch.where(chosen, weights, torch.ones_like(weights))

    def learn(self, x: Tensor, y: Tensor) -> Tensor:
        """Leave the gradients of each member's mean loss over its batch in `grads`; return the logits.

        x is [S, N, F] and y [S, N]: every member has rows of its own. The logits, [S, N, C], are overwritten
        by the next call.
        """
        h = x
        for layer in self.layers:
            h = layer.forward(h[: layer.count])
        for group, weights in zip(self.layout.groups, self.params.output, strict=True):
            part = slice(group.start, group.stop)
            inputs = self.layers[group.depth - 1].output[part]
            torch.baddbmm(self.bias[part].unsqueeze(1), inputs, weights.transpose(1, 2), out=self.logits[part])
        self._loss_backward(y)
        for group, weights, grad in zip(self.layout.groups, self.params.output, self.grads.output, strict=True):
            part, layer = slice(group.start, group.stop), self.layers[group.depth - 1]
            torch.bmm(self.logits_grad[part].transpose(1, 2), layer.output[part], out=grad)
            torch.bmm(self.logits_grad[part], weights, out=layer.grad[part])
        torch.sum(self.logits_grad, 1, out=self.bias_grad)
        for index in reversed(range(len(self.layers))):
            layer, below = self.layers[index], self.layers[index - 1] if index else None
            if below is None:
                layer.backward(x, None)
            else:
                layer.backward(below.output[: layer.count], below.grad[: layer.count])
        return self.logits

    def _loss_backward(self, y: Tensor) -> None:
        """Of cross-entropy: softmax less the target, over the rows."""
        grad = torch.softmax(self.logits, -1, out=self.logits_grad)
        if self._weights is not None:
            self._weighted(grad, y, self._weights)
            return
        if self._spread is not None:
            grad.sub_(self._spread)
        grad.scatter_add_(2, y.unsqueeze(-1), self._hit).mul_(1 / self.layout.batch)

    def _weighted(self, grad: Tensor, y: Tensor, weights: Tensor) -> None:
        """Turn the softmax into the gradient of torch's weighted mean, of which smoothing too is weighted."""
        of_rows = weights.gather(1, y).unsqueeze(-1)
        spread = self._smooth / self.layout.classes
        grad.mul_((1.0 - self._smooth) * of_rows + spread * weights.sum(1).view(-1, 1, 1))
        grad.sub_(spread * weights.unsqueeze(1)).scatter_add_(2, y.unsqueeze(-1), self._hit * of_rows)
        grad.div_(of_rows.sum(1, keepdim=True))

    def evaluate(self, x: Tensor) -> Tensor:
        """Return every member's logits of the same rows, [S, rows, C], without dropout, on running statistics."""
        layout = self.layout
        rows = max(64, EVALUATION_NUMBERS // (layout.slots * max(layout.widths)))
        logits = x.new_empty(layout.slots, len(x), layout.classes)
        for start in range(0, len(x), rows):
            self._evaluate(x[start : start + rows], logits[:, start : start + rows])
        return logits

    def _evaluate(self, x: Tensor, logits: Tensor) -> None:
        h = x.unsqueeze(0).expand(self.layout.slots, -1, -1)
        for depth, layer in enumerate(self.layers, 1):
            h = layer.evaluate(h[: layer.count])
            for group, weights in zip(self.layout.groups, self.params.output, strict=True):
                if group.depth == depth:
                    part = slice(group.start, group.stop)
                    bias = self.bias[part].unsqueeze(1)
                    logits[part] = torch.baddbmm(bias, h[part], weights.transpose(1, 2))
