"""How far the value of a metric would differ on other rows of the same kind: its standard error."""

import math

import numpy as np
from numpy.typing import NDArray

from hpo.config import Metric

REPLICATES = 1000
"""Samples of rows that are drawn with replacement, where no formula is known."""
SURE = 0.975
"""Quantile of the intervals that errors of the log loss are made for."""


def sampling_error(metric: Metric, probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the standard error of a metric that comes from the choice of rows.

    `probabilities` is float32 [rows, classes], `labels` int64 [rows]. By the usual formula for shares; for balanced
    accuracy and macro F1 by the bootstrap over rows (B. Efron, 1979, Ann. Statist. 7), with a fixed generator, for the
    log loss as `_error_of_mean`.
    """
    rows, classes = probabilities.shape
    if metric == "neg_log_loss":
        likely = probabilities[np.arange(rows), labels].astype(np.float64)
        return _error_of_mean(np.log(likely.clip(min=np.finfo(np.float32).tiny)))
    predicted = probabilities.argmax(1)
    if metric == "accuracy":
        share = float((predicted == labels).mean())
        return math.sqrt(share * (1 - share) / rows)
    # Rows of the same class that are classified alike are the same to these metrics, so cells are drawn, not rows.
    cells = _smoothed(np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes))
    drawn = np.random.default_rng(0).multinomial(rows, cells.ravel() / cells.sum(), size=REPLICATES)
    drawn = drawn.reshape(-1, classes, classes)
    hits, true, claimed = drawn.diagonal(axis1=1, axis2=2), drawn.sum(2), drawn.sum(1)
    parts, whole = (hits, true) if metric == "balanced_accuracy" else (2 * hits, true + claimed)
    scores = np.divide(parts, whole, out=np.full(parts.shape, np.nan), where=whole > 0)
    return float(np.nanmean(scores, axis=1).std(ddof=1))


def _smoothed(cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a confusion matrix [classes, classes] with half a right and half a wrong row more, over all classes.

    A class with few rows, all of them right, would else seem to be right always. This is Jeffreys' prior of a share,
    as in the promise of an accuracy. The rows of each class stay as many as they are.
    """
    classes, rows = len(cells), cells.sum(1, keepdims=True)
    prior = np.full(cells.shape, 0.5 / classes / (classes - 1))
    np.fill_diagonal(prior, 0.5 / classes)
    smoothed: NDArray[np.float64] = (cells + prior) * rows / (rows + 1 / classes)
    return smoothed


def _error_of_mean(values: NDArray[np.float64]) -> float:
    """Return the standard error of a mean, times what makes a normal interval of it as wide as Student's.

    A few rows with a large loss make most of its variance, which is then known badly: with 2 n / (kurtosis - 1) degrees
    of freedom, as follows from the variance of a variance (F. E. Satterthwaite, 1946, Biometrics Bull. 2).
    """
    from scipy import special

    rows, variance = len(values), float(values.var(ddof=1))
    kurtosis = float(((values - values.mean()) ** 4).mean()) / variance**2 if variance > 0 else 0.0
    freedom = max(1.0, 2 * rows / (kurtosis - 1)) if kurtosis > 1 else math.inf
    wider = float(special.stdtrit(freedom, SURE) / special.ndtri(SURE)) if math.isfinite(freedom) else 1.0
    return wider * math.sqrt(variance / rows)
