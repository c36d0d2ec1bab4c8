"""Intervals and tests of means: compared with published values, and counted over simulated data."""

import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.special import softmax

from hpo.config import Metric
from hpo.results.candidates import Rows, promised_score
from hpo.results.intervals import (
    Interval,
    anova_differs,
    blocked_differ,
    blocked_gaps,
    dunnett_intervals,
    mean_interval,
    prediction_interval,
    proportion_interval,
    rows_worth,
)
from hpo.results.noise import Noise, blocked_noise, noise_in_pair, noise_of
from hpo.results.promise import Promise
from hpo.training.metrics import compute_metrics
from hpo.training.sampling_error import sampling_error


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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("trainings", [2, 5, math.inf])
def test_a_promise_of_a_mean_is_kept_as_often_as_it_says(trainings: float) -> None:
    """Simulated: five trainings on 4,000 rows promise the mean of others, on 3,000 other rows."""
    chance, kept, halves = np.random.default_rng(0), 0, []
    for _ in range(400):
        seen = chance.binomial(4000, 0.93) / 4000 + chance.normal(0, 0.005, size=5)
        one, many = (prediction_interval(seen.tolist(), 4000, 3000, trainings=count) for count in (1, math.inf))
        interval = prediction_interval(seen.tolist(), 4000, 3000, trainings=trainings)
        if trainings != math.inf:
            between = Promise(statistics.fmean(seen), one, many).of_mean(int(trainings))
            assert (between.low, between.high) == pytest.approx((interval.low, interval.high))
        kept += chance.binomial(3000, 0.93) / 3000 + chance.normal(0, 0.005 / trainings**0.5) in interval
        halves.append(interval.half / one.half)
    assert kept / 400 >= 0.93
    assert np.mean(halves) < (0.9 if trainings == 2 else 0.8), "the mean of several is surer than one"


def test_a_promise_of_an_older_export_is_that_of_one_training() -> None:
    assert Promise(0.95, Interval(0.9, 0.98)).of_mean(7) == Interval(0.9, 0.98)


@pytest.mark.slow
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


def on_cuts(chance: np.random.Generator, skills: list[float], cuts: int) -> np.ndarray:
    """Accuracies [configurations, cuts] on random cuts, 100 of 500 rows each; the same rows are hard for all."""
    right = chance.random((len(skills), 500)) < np.clip(np.array(skills)[:, None] + chance.normal(0, 0.1, 500), 0, 1)
    scores = []
    for _ in range(cuts):
        rows = chance.permutation(500)[:100]
        retrained = right[:, rows] ^ (chance.random((len(skills), 100)) < 0.02)  # seeds change some predictions
        scores.append(retrained.mean(1))
    return np.array(scores).T


def test_comparisons_in_pairs_do_not_see_how_easy_a_cut_is() -> None:
    ease = np.array([0.0, 0.05, -0.05, 0.02, -0.02])
    control, better = 0.90 + ease, 0.91 + ease + [0.001, -0.001, 0, 0.001, -0.001]
    [paired] = blocked_gaps([list(better)], list(control), overlap=0.25)
    assert paired.low > 0.005 and paired.high < 0.015
    [independent] = dunnett_intervals([list(better)], list(control))
    assert independent.low < 0
    noise = blocked_noise([list(control), list(better)])
    assert noise.freedom == 4 and noise.deviation < 0.001
    assert blocked_differ([list(control), list(better)], 0.25) and not blocked_differ([list(control)] * 2, 0.25)
    # Two-sided, for five comparisons and 20 degrees of freedom (C. W. Dunnett, 1964, Biometrics 20): 2.73.
    chance = np.random.default_rng(0)
    six = [list(sample) for sample in chance.normal(0.9, 0.01, size=(6, 5))]
    half = 2.73 * blocked_noise(six).deviation * (2 / 5) ** 0.5
    assert blocked_gaps(six[:5], six[5], overlap=0.0)[0].half == pytest.approx(half, rel=0.005)


@pytest.mark.slow
def test_equal_candidates_on_the_same_cuts_rarely_differ() -> None:
    chance = np.random.default_rng(1)
    wrong = 0
    for _ in range(60):
        *candidates, control = on_cuts(chance, [0.9] * 6, 5).tolist()
        wrong += any(gap.low > 0 for gap in blocked_gaps(candidates, control, overlap=0.25))
    assert wrong <= 12  # configurations that are equal on average differ on these 500 rows


def test_overlap_widens_the_interval_of_a_mean() -> None:
    values = [0.9, 0.92, 0.91, 0.93, 0.89]
    ratio = mean_interval(values, overlap=0.25).half / mean_interval(values).half
    assert ratio == pytest.approx(((1 / 5 + 0.25) * 5) ** 0.5)


def test_rows_that_are_seen_twice_tell_less_than_two() -> None:
    assert rows_worth(1000, 200, 1) == 200
    assert rows_worth(1000, 200, 5) == 556
    assert rows_worth(1000, 200, 10_000) == pytest.approx(1000, abs=1)


def test_a_promise_after_random_cuts_is_kept() -> None:
    """Simulated: six configurations on five random cuts promise the first one's accuracy on 300 other rows."""
    chance = np.random.default_rng(0)
    kept, halves, old_halves = 0, [], []
    for _ in range(300):
        right = chance.random(500) < 0.93  # what the network knows of these rows
        scores = []
        for _ in range(5):
            rows = chance.permutation(500)[:100]
            scores.append([right[rows].mean() + noise for noise in chance.normal(0, 0.006, size=6)])
        table = np.array(scores).T.tolist()
        interval = prediction_interval(table[0], rows_worth(500, 100, 5), 300, blocked_noise(table))
        true = 0.93 + chance.normal(0, 0.006)
        kept += chance.binomial(300, min(true, 1.0)) / 300 in interval
        halves.append(interval.half)
        same = (right[:100].mean() + chance.normal(0, 0.006, size=5)).tolist()
        old_halves.append(prediction_interval(same, 100, 300).half)
    assert kept / 300 >= 0.93
    assert np.mean(halves) < 0.8 * np.mean(old_halves), "five cuts tell more than one"


def held(
    spreads: list[float],
    number: int,
    estimate: Callable[[list[list[float]], int], Noise] = noise_of,
    cuts: float = 2.0,
) -> tuple[float, float, float]:
    """How often one more training lies where five cuts promise it, with its own noise and with all noise pooled.

    And how wide the first interval is in relation to the second, the median.
    """
    chance, own, pooled, widths = np.random.default_rng(0), 0, 0, []
    for _ in range(800):
        table = chance.normal(0, 1, (len(spreads), 5)) * np.array(spreads)[:, None] + chance.normal(0, cuts, 5)
        miss = abs(chance.normal(0, spreads[number] * 1.2**0.5))  # of one more training and the mean of five
        halves = [
            stats.t.ppf(0.975, noise.freedom) * noise.deviation * 1.2**0.5
            for noise in (estimate(table.tolist(), number), blocked_noise(table.tolist()))
        ]
        own, pooled = own + (miss < halves[0]), pooled + (miss < halves[1])
        widths.append(halves[0] / halves[1])
    return own / 800, pooled / 800, float(np.median(widths))


@pytest.mark.slow
def test_noise_is_that_of_configurations_alike() -> None:
    for count in (3, 5):
        share, _, width = held([1.0] * count, 0)
        assert share >= 0.93 and width < 1.1, "of equal noise little is lost"
        noisy = [1.0] * (count - 1) + [5.0]
        share, pooled, width = held(noisy, 0)
        assert share >= 0.93 and pooled > 0.98 and width < 0.7, "noise of another one widens the interval less"
        share, pooled, _ = held(noisy, count - 1)
        assert share >= 0.85 and share > pooled + 0.05, "a noisy one's promise is kept"


@pytest.mark.slow
@pytest.mark.parametrize("cuts", [0.0, 1.0])
def test_of_two_configurations_each_has_its_own_noise(cuts: float) -> None:
    def estimate(table: list[list[float]], number: int) -> Noise:
        return noise_in_pair(table[number], table[1 - number])

    share, _, width = held([1.0, 1.0], 0, estimate, cuts)
    assert share >= 0.94 and width < 1.1
    share, pooled, width = held([1.0, 5.0], 0, estimate, cuts)
    assert share >= 0.94 and pooled > 0.99 and width < 0.6
    share, pooled, _ = held([1.0, 5.0], 1, estimate, cuts)
    assert share >= 0.89 and share > pooled


@pytest.mark.slow
def test_a_winner_is_found_beside_a_noisy_candidate_and_none_where_all_are_equal() -> None:
    chance, found, false = np.random.default_rng(0), 0, 0
    spreads = np.array([1, 5, 1, 1, 1, 1])[:, None]
    for _ in range(100):
        table = chance.normal(0, 1, (6, 5)) * spreads + chance.normal(0, 2, 5)
        false += any(gap.low > 0 or gap.high < 0 for gap in blocked_gaps(table[:-1].tolist(), table[-1].tolist(), 0.0))
        table[0] += 2.0
        found += blocked_gaps(table[:-1].tolist(), table[-1].tolist(), 0.0)[0].low > 0
    assert false <= 12 and found >= 45, (false, found)  # with all noise pooled 14 % and 9 %


def test_noise_without_any_spread_is_none() -> None:
    assert noise_of([[1.0, 1.0, 1.0]] * 3, 0).deviation == pytest.approx(0, abs=1e-12)
    flat, one = [0.9, 0.9, 0.9], [0.9, 0.8, 0.9]
    assert noise_in_pair(flat, flat).deviation == pytest.approx(0, abs=1e-12)
    assert noise_of([flat, flat, one], 0) == blocked_noise([flat, flat, one]), "nothing to compare with"


CLASSES = {"few rows": [0.33, 0.4, 0.27], "a rare class": [0.8, 0.15, 0.05]}
"""Shares of the rows."""


@pytest.mark.slow
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1", "neg_log_loss"])
def test_promises_of_other_metrics_are_kept(metric: Metric, classes: str) -> None:
    """Simulated: five random cuts promise the score on other rows, where few rows are wrong or make the log loss."""
    chance = np.random.default_rng(0)
    total, validation, new = (142, 29, 36) if classes == "few rows" else (640, 128, 160)
    kept, halves = 0, []
    for _ in range(200):
        labels = chance.choice(3, size=total + new, p=CLASSES[classes])
        logits = chance.normal(0, 2, size=(total + new, 3)) + 6 * np.eye(3)[labels]
        known = softmax(logits, axis=1).astype(np.float32)
        cuts = [chance.permutation(total)[:validation] for _ in range(5)]
        values = [_score(metric, known[rows], labels[rows]) for rows in cuts]
        errors = [sampling_error(metric, known[rows], labels[rows]) for rows in cuts]
        behind = Rows(validation, rows_worth(total, validation, 5), new)
        promise = promised_score(metric, values, errors, behind, Noise(1e-9, 20))
        assert promise is not None
        kept += _score(metric, known[total:], labels[total:]) in promise
        halves.append(promise.half)
    assert kept / 200 >= 0.93
    assert np.mean(halves) < (0.2 if metric == "neg_log_loss" else 0.1)


def _score(metric: Metric, probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    metrics = compute_metrics(torch.tensor(probabilities).log(), torch.tensor(labels))
    return -metrics.loss if metric == "neg_log_loss" else float(getattr(metrics, metric))
