"""Scores on the test split: accuracy with its interval, per-class scores, confusion matrix."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
)

from hpo.config import Metric
from hpo.results.intervals import proportion_interval


def test_scores(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], classes: tuple[str, ...]
) -> dict[str, Any]:
    """Return test scores as JSON types.

    `probabilities` is float32 [rows, classes]. Accuracy comes with Wilson's 95 % interval, precision and recall are 0
    for a class that was never predicted, `confusion` counts rows of class i predicted as class j.
    """
    numbers = list(range(len(classes)))
    predicted = probabilities.argmax(1)
    precise = probabilities.astype(np.float64)
    precise /= precise.sum(1, keepdims=True)
    accuracy = float((predicted == labels).mean())
    interval = proportion_interval(accuracy, len(labels))
    balanced = balanced_accuracy_score(labels, predicted)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=numbers, average=None, zero_division=0.0
    )
    return {
        "test_accuracy": accuracy,
        "test_accuracy_interval": [interval.low, interval.high],
        "test_balanced_accuracy": float(balanced),
        "test_macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0.0)),
        "test_loss": float(log_loss(labels, precise, labels=numbers)),
        "test_rows": len(labels),
        "classes": [
            {"name": name, "precision": float(p), "recall": float(r), "f1": float(f), "rows": int(s)}
            for name, p, r, f, s in zip(classes, precision, recall, f1, support, strict=True)
        ],
        "confusion": confusion_matrix(labels, predicted, labels=numbers).tolist(),
    }


def score_of(metric: Metric, scores: dict[str, Any]) -> float:
    """Return the value of a metric among test scores."""
    return float(-scores["test_loss"] if metric == "neg_log_loss" else scores[f"test_{metric}"])
