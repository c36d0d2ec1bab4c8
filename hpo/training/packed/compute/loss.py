"""The gradient of each member's loss: cross-entropy with the member's label smoothing and class weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.training.packed.layout.blocks import AnyLayout


class Loss:
    """The mean cross-entropy of each slot over its batch."""

    def __init__(self, layout: AnyLayout, smoothing: Sequence[float], like: Tensor) -> None:
        """`smoothing` is the label smoothing of each slot."""
        self._batch, self._classes = layout.batch, layout.classes
        self.smooth = torch.tensor(list(smoothing), dtype=like.dtype, device=like.device).view(-1, 1, 1)
        self._smooths = layout.static_shapes or any(smoothing)
        self._less = self.smooth - 1.0
        self._spread = self.smooth / self._classes
        """The part of the target that each class has for any label: [S, 1, 1]."""
        self._hit = self._less.expand(-1, layout.batch, 1)
        self.weights: Tensor | None = None
        """Weight of each class in the loss of each slot, if any member has class weights: [S, C]."""

    def set_class_weights(self, weights: Tensor, balanced: Sequence[bool]) -> None:
        """Give those slots where `balanced` is true these class weights: [C]."""
        chosen = torch.tensor(list(balanced), device=weights.device).unsqueeze(1)
        self.weights = torch.where(chosen, weights, torch.ones_like(weights))

    def replace(self, slot: int, smoothing: float, weights: Tensor | None) -> None:
        """Give a slot the loss of another member; class weights are [C], None for equal ones."""
        self.smooth[slot] = smoothing
        self._less[slot] = smoothing - 1.0
        self._spread[slot] = smoothing / self._classes
        if self.weights is not None:
            self.weights[slot] = 1.0 if weights is None else weights

    def backward(self, logits: Tensor, y: Tensor, grad: Tensor) -> None:
        """Write the gradient of the logits, [S, N, C], to `grad`, given labels y [S, N].

        It is, for each row, the softmax minus the target, divided by the number of rows.
        """
        torch.softmax(logits, -1, out=grad)
        if self.weights is not None:
            self._weighted(grad, y, self.weights)
            return
        if self._smooths:
            grad.sub_(self._spread)
        grad.scatter_add_(2, y.unsqueeze(-1), self._hit).mul_(1 / self._batch)

    def _weighted(self, grad: Tensor, y: Tensor, weights: Tensor) -> None:
        """Turn the softmax into the gradient of torch's weighted mean, in which the smoothing is weighted too."""
        of_rows = weights.gather(1, y).unsqueeze(-1)
        spread = self._spread
        grad.mul_((1.0 - self.smooth) * of_rows + spread * weights.sum(1).view(-1, 1, 1))
        grad.sub_(spread * weights.unsqueeze(1)).scatter_add_(2, y.unsqueeze(-1), self._hit * of_rows)
        grad.div_(of_rows.sum(1, keepdim=True))
