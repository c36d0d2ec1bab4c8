"""What logits are worth: accuracy, balanced accuracy, macro F1 and loss, counted where the logits lie."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Metrics:
    """Of one pass over rows; as scikit-learn defines them."""

    accuracy: float
    balanced_accuracy: float
    """Mean share of a class's rows that is right, over the classes that have rows."""
    macro_f1: float
    """Mean F1 over the classes that have rows or were predicted."""
    loss: float
    """Mean cross-entropy, not weighted."""


def compute_metrics(logits: Tensor, y: Tensor) -> Metrics:
    """Return what logits [rows, classes] are worth against labels [rows]; one exchange with the device."""
    classes = logits.shape[1]
    predicted = logits.argmax(1)
    right = torch.bincount(y, weights=(predicted == y).float(), minlength=classes)
    counts = torch.stack([right, torch.bincount(y, minlength=classes), torch.bincount(predicted, minlength=classes)])
    *flat, loss = torch.cat([counts.flatten(), F.cross_entropy(logits, y).view(1)]).tolist()
    hits, rows, guesses = flat[:classes], flat[classes : 2 * classes], flat[2 * classes :]
    recalls = [hit / there for hit, there in zip(hits, rows, strict=True) if there]
    f1s = [2 * h / (n + g) for h, n, g in zip(hits, rows, guesses, strict=True) if n + g]
    return Metrics(sum(hits) / len(y), sum(recalls) / len(recalls), sum(f1s) / len(f1s), loss)
