"""The noise of training: how far scores of one configuration lie apart on the same rows.

Several configurations on the same cuts show it together, and surer than one does: what is left of their scores without
each one's mean and each cut's. But some train noisily (large learning rates, few epochs); their noise says little about
that of others.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

DIFFERS = 0.05
"""Level of a test of whether one configuration is noisier than the others: by itself of the one in question, for
overlooking its noise breaks promises, and of the others by all tests together. Simulated, four configurations on five
cuts, in brackets with all noise pooled: of equal noise, promises are kept in 94 % (94 %) and 3 % wider; beside one of
five times the noise in 94 % (100 %), less than half as wide; around one of three times the noise in 88 % (74 %). Three
configurations on three cuts, of equal noise: 93 % (94 %)."""


class Noise(NamedTuple):
    """The standard deviation of single scores, and the degrees of freedom with which it was estimated."""

    deviation: float
    freedom: int


def blocked_noise(samples: Sequence[Sequence[float]]) -> Noise:
    """Return the noise of scores of several configurations, each once on the same cuts (the residual of both means).

    `samples` are at least two sequences of equal length, at least two. How easy a cut's rows are is not noise.
    """
    table = np.array(samples)
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return Noise(math.sqrt(_residual(table) / freedom), freedom)


def noise_of(samples: Sequence[Sequence[float]], number: int) -> Noise:
    """Return the noise of one of several configurations, from those whose noise does not differ from its own.

    The noisiest others are left out one by one (as ISO 5725-2 leaves out laboratories with outlying variances). Where
    it is itself the noisier one, its noise is that of its own differences from the others' mean.
    """
    table, like = np.array(samples), list(range(len(samples)))
    while len(like) > 2:
        chances = {each: _chance_of_more_noise(table, like, each) for each in like}
        if chances[number] < DIFFERS:
            rest = table[number] - table[[each for each in like if each != number]].mean(0)
            return Noise(float(rest.std(ddof=1)), len(rest) - 1)
        noisiest = min(chances, key=lambda each: chances[each])
        if chances[noisiest] >= DIFFERS / len(like):
            break
        like.remove(noisiest)
    return blocked_noise([samples[each] for each in like])


def noise_in_pair(one: Sequence[float], other: Sequence[float]) -> Noise:
    """Return the noise of one of two configurations, from both where it does not differ.

    The correlation of their sum with their difference tells which of the two varies more (E. J. G. Pitman, 1939, and
    W. A. Morgan, 1939, Biometrika 31). Where the other one is noisier, the noise is the spread of this one's values,
    which is too large by how easy the cuts' rows are. Where this one is noisier, it is the spread of the differences,
    which is too large by the other's noise.
    """
    values, others = np.array(one), np.array(other)
    total, difference = values + others, values - others
    if np.ptp(total) > 0 and np.ptp(difference) > 0:
        chance = float(stats.pearsonr(total, difference, alternative="greater").pvalue)
        if chance < DIFFERS:
            return Noise(float(difference.std(ddof=1)), len(values) - 1)
        if chance > 1 - DIFFERS:
            return Noise(float(values.std(ddof=1)), len(values) - 1)
    return blocked_noise([one, other])


def _chance_of_more_noise(table: NDArray[np.float64], like: Sequence[int], number: int) -> float:
    """Return how likely a configuration of equal noise adds so much to the residual of the others.

    What it adds is independent of the residual of the others, so that their ratio has an F distribution. It is 1 where
    the others have no residual: scores on few rows that are all the same tell nothing of noise.
    """
    others = [each for each in like if each != number]
    without, steps = _residual(table[others]), table.shape[1] - 1
    if without <= 0:
        return 1.0
    added = _residual(table[like]) - without
    return float(stats.f.sf(added / (without / (len(others) - 1)), steps, (len(others) - 1) * steps))


def _residual(table: NDArray[np.float64]) -> float:
    """Return the sum of squares that neither the mean of a configuration nor that of a cut explains."""
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    return float((rest**2).sum())
