"""How far the value of a metric would differ on other rows of the same kind: its standard error."""

import math

import numpy as np
from numpy.typing import NDArray

from hpo.config import Metric

REPLICATES = 1000
"""Samples of rows that are drawn with replacement, where no formula is known."""


def sampling_error(metric: Metric, probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the standard error of a metric that comes from the choice of rows.

    `probabilities` is float32 [rows, classes], `labels` int64 [rows]. By the usual formulas for shares and means; for
    balanced accuracy and macro F1 by the bootstrap over rows (B. Efron, 1979, Ann. Statist. 7), with a fixed generator.
    """
    rows, classes = probabilities.shape
    if metric == "neg_log_loss":
        likely = probabilities[np.arange(rows), labels].astype(np.float64)
        return float(np.log(likely.clip(min=np.finfo(np.float32).tiny)).std(ddof=1)) / math.sqrt(rows)
    predicted = probabilities.argmax(1)
    if metric == "accuracy":
        share = float((predicted == labels).mean())
        return math.sqrt(share * (1 - share) / rows)
    # Rows of the same class that are classified alike are the same to these metrics, so cells are drawn, not rows.
    cells = np.bincount(labels * classes + predicted, minlength=classes**2)
    drawn = np.random.default_rng(0).multinomial(rows, cells / rows, size=REPLICATES).reshape(-1, classes, classes)
    hits, true, claimed = drawn.diagonal(axis1=1, axis2=2), drawn.sum(2), drawn.sum(1)
    parts, whole = (hits, true) if metric == "balanced_accuracy" else (2 * hits, true + claimed)
    scores = np.divide(parts, whole, out=np.full(parts.shape, np.nan), where=whole > 0)
    return float(np.nanmean(scores, axis=1).std(ddof=1))
