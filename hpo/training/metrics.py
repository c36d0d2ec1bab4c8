"""Metrics of logits: accuracy, balanced accuracy, macro F1 and loss, computed on the device of the logits.

This module computes values; which of the metrics a study maximizes is named by `hpo.config.metrics.Metric`.
"""

from dataclasses import dataclass

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
