"""The gradient of every member's loss: cross-entropy with a label smoothing and class weights of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.training.packed.blocks import AnyLayout


class Loss:
    """Cross-entropy of each slot, the mean over its batch."""

    def __init__(self, layout: AnyLayout, smoothing: Sequence[float], like: Tensor) -> None:
        """`smoothing` is each slot's label smoothing."""
        self._batch, self._classes = layout.batch, layout.classes
        self._smooth = torch.tensor(list(smoothing), dtype=like.dtype, device=like.device).view(-1, 1, 1)
        self._smooths = layout.static_shapes or any(smoothing)
        self._less = self._smooth - 1.0
        self._hit = self._less.expand(-1, layout.batch, 1)
        self.weights: Tensor | None = None
        """Of each class in each member's loss, if any member has them: [S, C]."""

    def weigh(self, weights: Tensor, weighed: Sequence[bool]) -> None:
        """Have the loss of some members weigh each row by its class: weights [C]."""
        chosen = torch.tensor(list(weighed), device=weights.device).unsqueeze(1)
        self.weights = torch.where(chosen, weights, torch.ones_like(weights))

    def replace(self, slot: int, smoothing: float, weights: Tensor | None) -> None:
        """Have a slot's loss be another member's; weights [C], None for equal ones."""
        self._smooth[slot] = smoothing
        self._less[slot] = smoothing - 1.0
        if self.weights is not None:
            self.weights[slot] = 1.0 if weights is None else weights

    def backward(self, logits: Tensor, y: Tensor, grad: Tensor) -> None:
        """Leave in `grad` the gradient of logits, [S, N, C], for labels, [S, N].

        Of each row: softmax less the target, over the number of rows.
        """
        torch.softmax(logits, -1, out=grad)
        if self.weights is not None:
            self._weighted(grad, y, self.weights)
            return
        if self._smooths:
            grad.sub_(self._smooth / self._classes)
        grad.scatter_add_(2, y.unsqueeze(-1), self._hit).mul_(1 / self._batch)

    def _weighted(self, grad: Tensor, y: Tensor, weights: Tensor) -> None:
        """Turn the softmax into the gradient of torch's weighted mean, of which smoothing too is weighted."""
        of_rows = weights.gather(1, y).unsqueeze(-1)
        spread = self._smooth / self._classes  # what each class gets of the target whatever the label is
        grad.mul_((1.0 - self._smooth) * of_rows + spread * weights.sum(1).view(-1, 1, 1))
        grad.sub_(spread * weights.unsqueeze(1)).scatter_add_(2, y.unsqueeze(-1), self._hit * of_rows)
        grad.div_(of_rows.sum(1, keepdim=True))
