"""Metrics of logits: accuracy, balanced accuracy, macro F1 and loss, computed on the device of the logits.

This module computes values; which of the metrics a study maximizes is named by `hpo.config.metrics.Metric`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Metrics:
    """Values of the metrics on some rows, by the definitions of scikit-learn."""

    accuracy: float
    """Share of the rows that are classified correctly, 0 to 1."""
    balanced_accuracy: float
    """Recall, averaged over the classes that have rows, 0 to 1."""
    macro_f1: float
    """F1, averaged over the classes that have rows or were predicted, 0 to 1."""
    loss: float
    """Mean cross-entropy, without class weights."""


def compute_metrics(logits: Tensor, y: Tensor) -> Metrics:
    """Return the metrics of logits [rows, classes], given labels y [rows]; one transfer from the device."""
    classes = logits.shape[1]
    predicted = logits.argmax(1)
    correct = torch.bincount(y, weights=(predicted == y).float(), minlength=classes)
    counts = torch.stack([correct, torch.bincount(y, minlength=classes), torch.bincount(predicted, minlength=classes)])
    *flat, loss = torch.cat([counts.flatten(), F.cross_entropy(logits, y).view(1)]).tolist()
    hits, rows, predictions = flat[:classes], flat[classes : 2 * classes], flat[2 * classes :]
    recalls = [hit / count for hit, count in zip(hits, rows, strict=True) if count]
    f1s = [2 * h / (n + p) for h, n, p in zip(hits, rows, predictions, strict=True) if n + p]
    return Metrics(sum(hits) / len(y), sum(recalls) / len(recalls), sum(f1s) / len(f1s), loss)


def confusions(logits: Tensor, y: Tensor) -> Tensor:
    """Return each slot's confusion matrix and mean loss, given logits [rows, S, C] and labels y [rows, S] or [rows, 1].

    Float64 [S, C * C + 1]; an entry counts the rows of a class (row) that were classified as another (column). Nothing
    waits for the device.
    """
    rows, slots, classes = logits.shape
    labels = y.expand(rows, slots)
    places = labels * classes + logits.argmax(2)
    places += torch.arange(slots, device=logits.device) * classes**2
    counts = torch.zeros(slots * classes**2, dtype=torch.float64, device=logits.device)
    counts.scatter_add_(0, places.flatten(), counts.new_ones(1).expand(rows * slots))
    losses = torch.logsumexp(logits, 2) - logits.gather(2, labels.unsqueeze(2)).squeeze(2)
    return torch.cat([counts.view(slots, -1), losses.mean(0).double().unsqueeze(1)], 1)


def metrics_of(confusions: Sequence[Tensor]) -> list[list[Metrics]]:
    """Return the metrics of each slot for each result of `confusions`; one transfer from the device for all."""
    return [_metrics(block) for block in torch.stack(list(confusions)).cpu().numpy()]


def _metrics(block: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> list[Metrics]:
    slots, losses = len(block), block[:, -1]
    classes = math.isqrt(block.shape[1])
    matrices = block[:, :-1].reshape(slots, classes, classes)
    hits, rows, predictions = matrices.diagonal(axis1=1, axis2=2), matrices.sum(2), matrices.sum(1)
    accuracy, present, seen = hits.sum(1) / rows.sum(1), rows > 0, rows + predictions > 0
    recall = (hits / np.where(present, rows, 1)).sum(1) / present.sum(1)
    f1 = (2 * hits / np.where(seen, rows + predictions, 1)).sum(1) / seen.sum(1)
    return [Metrics(*map(float, each)) for each in zip(accuracy, recall, f1, losses, strict=True)]
