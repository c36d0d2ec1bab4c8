"""Intervals and tests of means: compared with published values, and counted over simulated data."""

import numpy as np
import pytest

from hpo.results.intervals import (
    Interval,
    anova_differs,
    dunnett_intervals,
    mean_interval,
    prediction_interval,
    proportion_interval,
)


def test_intervals_are_those_of_the_books() -> None:
    # Student's t of 1..5: 3 ± 2.776 * 1.5811 / sqrt(5).
    interval = mean_interval([1, 2, 3, 4, 5])
    assert interval.low == pytest.approx(1.0368, abs=1e-4) and interval.high == pytest.approx(4.9632, abs=1e-4)
    # Wilson, 81 of 263 (R. G. Newcombe, 1998, Stat. Med. 17, table I): 0.2553 to 0.3662.
    interval = proportion_interval(81 / 263, 263)
    assert interval.low == pytest.approx(0.2553, abs=1e-4) and interval.high == pytest.approx(0.3662, abs=1e-4)
    # Dunnett's own example of three fabrics (1955): A above the control, 11 ± 16.
    control = [55, 47, 48]
    interval = dunnett_intervals([[55, 64, 64], [55, 49, 52], [50, 44, 41]], control)[0]
    assert interval.low == pytest.approx(0, abs=1.5) and interval.high == pytest.approx(22, abs=1.5)
    assert mean_interval([0.5, 0.5]) == Interval(0.5, 0.5)
    assert dunnett_intervals([[0.5, 0.5]], [0.4, 0.4])[0].low == pytest.approx(0.1)


def test_a_promise_is_kept_as_often_as_it_says() -> None:
    """Simulated: five trainings on 400 rows promise a sixth, on 300 other rows; and the same without any spread."""
    chance = np.random.default_rng(0)
    for spread in (0.0, 0.01):
        kept = 0
        for _ in range(400):
            true = chance.normal(0.93, spread, size=6)
            shared = chance.binomial(400, 0.93) / 400 - 0.93  # the same validation rows for all five
            interval = prediction_interval((true[:5] + shared).tolist(), 400, 300)
            kept += chance.binomial(300, min(true[5], 1.0)) / 300 in interval
        assert kept / 400 >= 0.93


def test_equal_candidates_rarely_differ() -> None:
    chance = np.random.default_rng(0)
    wrong = 0
    for _ in range(30):
        candidates, control = chance.normal(0.9, 0.01, size=(5, 5)), chance.normal(0.9, 0.01, size=5)
        wrong += any(interval.low > 0 for interval in dunnett_intervals(list(candidates), list(control)))
    assert wrong <= 3
    assert not anova_differs([[0.9, 0.91, 0.89], [0.9, 0.89, 0.91]]) and anova_differs(
        [[0.9, 0.91, 0.89], [0.8, 0.81, 0.79]]
    )
