"""Intervals of scores: what a mean is worth, what a gap is worth, where a retraining should land.

Three sources of chance are distinguished. Training itself (initial weights, data order, dropout) is seen in the
spread between seeds. The rows on which a score is taken are a sample too. And the best of many noisy scores
is high by luck: fresh seeds remove that, no formula does.
"""

import math
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

LEVEL = 0.95
"""Confidence of every interval."""


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`."""

    low: float
    high: float

    @property
    def half(self) -> float:
        """Half its width."""
        return (self.high - self.low) / 2

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def mean_interval(values: Sequence[float]) -> Interval:
    """Return Student's t interval of the mean of at least two values; its low end is the lower confidence bound."""
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    if error == 0:
        return Interval(mean, mean)
    low, high = stats.t.interval(LEVEL, len(values) - 1, loc=mean, scale=error)
    return Interval(float(low), float(high))


def dunnett_intervals(samples: Sequence[Sequence[float]], control: Sequence[float]) -> list[Interval]:
    """Return intervals of how far each sample's mean lies above the control's, all right at once.

    Dunnett's comparisons of many treatments with one control (C. W. Dunnett, 1955, J. Amer. Statist. Assoc. 50),
    which pay for having several candidates. They take the spread between seeds for equal.
    """
    with warnings.catch_warnings():  # of samples without any spread, whose interval is a point
        warnings.simplefilter("ignore")
        # A fixed generator, for the quantile is computed by random integration.
        bounds = stats.dunnett(*samples, control=control, rng=0).confidence_interval(LEVEL)
    return [Interval(float(low), float(high)) for low, high in zip(bounds.low, bounds.high, strict=True)]


def anova_differs(samples: Sequence[Sequence[float]]) -> bool:
    """Say whether any of several samples differs from the others beyond chance (one-way analysis of variance)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(stats.f_oneway(*samples).pvalue < 1 - LEVEL)


def proportion_interval(accuracy: float, rows: float) -> Interval:
    """Return Wilson's interval of an accuracy that was taken on so many rows (E. B. Wilson, 1927)."""
    count = max(1, round(rows))
    bounds = stats.binomtest(round(accuracy * count), count).proportion_ci(LEVEL, method="wilson")
    return Interval(float(bounds.low), float(bounds.high))


def prediction_interval(values: Sequence[float], seen_rows: int, new_rows: int) -> Interval:
    """Return where the accuracy of one more training should land on `new_rows` other rows.

    `values` are accuracies on the same `seen_rows` rows, of trainings that differ in their seeds. Two parts are
    added as squares (the method of variance estimates recovery; G. Y. Zou and A. Donner, 2008, Stat. Med. 27): the
    spread of one more training, and that of two samples of rows, which is the predictive distribution of a count
    after a count, beta-binomial under Jeffreys' prior.
    """
    mean, count = statistics.fmean(values), len(values)
    spread = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * statistics.stdev(values) * math.sqrt(1 + 1 / count)
    seen = min(max(mean, 0.0), 1.0) * seen_rows
    low, high = stats.betabinom.interval(LEVEL, new_rows, seen + 0.5, seen_rows - seen + 0.5)
    down, up = max(0.0, mean - low / new_rows), max(0.0, high / new_rows - mean)
    return Interval(max(0.0, mean - math.hypot(down, spread)), min(1.0, mean + math.hypot(up, spread)))
