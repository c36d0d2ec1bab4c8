"""What fresh trainings show of a search's best configurations: how good each is, and whether there is a winner.

Trainings on the same cut are compared in pairs, so that a cut with easy rows favours none. Where all were validated on
the study's own rows, they are compared as independent samples.
"""

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hpo import data
from hpo.config import WORST, Metric, TrialConfig
from hpo.config.metrics import BEST
from hpo.results.intervals import (
    Interval,
    anova_differs,
    blocked_differ,
    blocked_gaps,
    dunnett_intervals,
    mean_interval,
    prediction_interval,
    rows_worth,
    score_prediction_interval,
)
from hpo.results.noise import Noise, noise_in_pair, noise_of
from hpo.store.studies import StudyRecord
from hpo.store.views import TrialView

Values = Mapping[int, float]
"""Values of a configuration's fresh trainings, by repeat."""


@dataclass(frozen=True)
class Candidate:
    """A configuration that was trained again, with its results in the study's metric."""

    number: int
    """Number of the trial in the study that was searched."""
    config: TrialConfig
    baseline: str | None
    """The baseline's name, if it is one."""
    searched: float
    """Value in the search."""
    values: tuple[float, ...]
    """Values of the fresh trainings, in their order."""
    interval: Interval
    """Confidence interval of the mean."""
    gap: Interval | None
    """Difference of its mean and the baseline's; None for the baseline, and without one."""
    promise: Interval | None
    """Prediction interval of the score of one more training, on as many rows as the test split has, if they are like
    those of training; None where there are none, or where it is not known how sure scores are."""
    promise_of_mean: Interval | None
    """The same of the mean score of very many more trainings."""

    @property
    def mean(self) -> float:
        """Mean over the fresh trainings."""
        return statistics.fmean(self.values)

    @property
    def luck(self) -> float:
        """The part of the value in the search that fresh trainings did not repeat."""
        return self.searched - self.mean


@dataclass(frozen=True)
class Confirmation:
    """The candidates, the one with the highest mean over the common cuts first."""

    study: str
    """Name of the study that holds the trainings."""
    candidates: tuple[Candidate, ...]
    verdict: str
    certain: bool
    """Whether the winner is better than the baseline beyond chance."""
    missing: int
    """Trainings that failed or are still to come."""
    fresh_cuts: bool
    """Whether each time other rows were validated on; else always those that the search chose by."""
    test_like_training: bool
    """Whether the test rows are known to be like those of training, so that the promises hold for them."""

    @property
    def winner(self) -> Candidate:
        """The candidate to keep."""
        return self.candidates[0]


class _Comparison:
    """How the trainings of a confirmation are compared: in pairs by cut, or as independent samples."""

    def __init__(self, study: StudyRecord, samples: Collection[Values], *, fresh_cuts: bool) -> None:
        self._info = data.info(study.space.data)
        total, self._fresh_cuts = self._info.rows[0], fresh_cuts
        self._metric = study.metric
        self._validation = study.space.split.rows_of(total)
        self.overlap = self._validation / (total - self._validation) if fresh_cuts else 0.0
        repeats = sorted(set.intersection(*(set(values) for values in samples)))
        self._paired = repeats if fresh_cuts and len(samples) > 1 and len(repeats) > 1 else []
        self._regular = [values for values in samples if WORST[study.metric] not in values.values()]  # none diverged

    def _table(self, samples: Iterable[Values]) -> list[list[float]]:
        return [[values[repeat] for repeat in self._paired or sorted(values)] for values in samples]

    def mean(self, values: Values) -> float:
        """Return the mean by which candidates are ranked: over the cuts that all of them have in common.

        Not by the lower bound of each interval: with three or five seeds, its width is mostly chance. Of six candidates
        as far apart as noise is wide, the mean of three seeds finds the best in 66 %, such a bound in 43 %.
        """
        return statistics.fmean(self._table([values])[0])

    def gaps(self, others: Sequence[Values], control: Values) -> list[Interval]:
        """Return how far the means of other configurations lie above that of a control."""
        *samples, baseline = self._table([*others, control])
        return blocked_gaps(samples, baseline, self.overlap) if self._paired else dunnett_intervals(samples, baseline)

    def differ(self, samples: Iterable[Values]) -> bool:
        """Say whether any of several configurations differs from the others beyond chance."""
        table = self._table(samples)
        return blocked_differ(table, self.overlap) if self._paired else anova_differs(table)

    def promise(self, values: Values, errors: Sequence[float], trainings: float) -> Interval | None:
        """Return where the mean score of so many more trainings should land on as many rows as the test split has.

        `errors` are the standard errors of the values that come from the choice of rows; none of accuracies.
        """
        new = self._info.rows[1]
        if new == 0:
            return None
        seen = rows_worth(self._info.rows[0], self._validation, len(values)) if self._fresh_cuts else self._validation
        scores, rows = [value for _, value in sorted(values.items())], Rows(self._validation, seen, new)
        return promised_score(self._metric, scores, errors, rows, self._noise_of(values), trainings=trainings)

    def _noise_of(self, values: Values) -> Noise | None:
        """Return the noise of a candidate as all of them show it; None where only its own values can."""
        numbers = [number for number, each in enumerate(self._regular) if each is values]
        if not self._paired or len(self._regular) < 2 or not numbers:
            return None
        table = self._table(self._regular)
        if len(table) == 2:
            return noise_in_pair(table[numbers[0]], table[1 - numbers[0]])
        return noise_of(table, numbers[0])


class Rows(NamedTuple):
    """How many rows stand behind a promise."""

    validation: int
    """That each of the values was taken on."""
    seen: int
    """What all of them together are worth, as rows that were seen once."""
    new: int
    """That the promised score is taken on."""


def promised_score(
    metric: Metric,
    values: Sequence[float],
    errors: Sequence[float],
    rows: Rows,
    noise: Noise | None = None,
    *,
    trainings: float = 1,
) -> Interval | None:
    """Return where the mean score of so many more trainings should land; None where it is not known how sure it is.

    `errors` are the standard errors of the values that come from the choice of rows; none of accuracies. `noise` is
    that of training, by default the spread of the values.
    """
    if metric == "accuracy":
        return prediction_interval(values, rows.seen, rows.new, noise, trainings=trainings)
    if not errors:
        return None
    # Of squares: errors on few rows differ, some are 0, and their mean would be too small.
    row_deviation = math.sqrt(statistics.fmean(error**2 for error in errors) * rows.validation)
    promised = score_prediction_interval(values, row_deviation, rows.seen, rows.new, noise, trainings=trainings)
    return Interval(max(WORST[metric], promised.low), min(BEST[metric], promised.high))


def compare(
    name: str,
    study: StudyRecord,
    sources: Mapping[int, TrialView],
    samples: Mapping[int, Values],
    errors: Mapping[int, Sequence[float]],
    *,
    fresh_cuts: bool,
    missing: int,
) -> Confirmation:
    """Compare trials of a study by their fresh trainings, of which each has at least two.

    `errors` are the standard errors of their scores that come from the choice of rows; empty for accuracies.
    """
    comparison = _Comparison(study, [samples[number] for number in sources], fresh_cuts=fresh_cuts)
    control = next((n for n, trial in sources.items() if trial.attributes.baseline is not None), None)
    others = [n for n in sources if n != control]
    gaps: dict[int, Interval] = {}
    if control is not None and others:
        gaps = dict(zip(others, comparison.gaps([samples[n] for n in others], samples[control]), strict=True))
    candidates = []
    for number, trial in sources.items():
        config = study.full(trial.config)
        values = tuple(value for _, value in sorted(samples[number].items()))
        candidates.append(
            Candidate(
                number=number,
                config=config,
                baseline=trial.attributes.baseline,
                searched=trial.value if trial.value is not None else WORST[config.metric],
                values=values,
                interval=mean_interval(values, comparison.overlap),
                gap=gaps.get(number),
                promise=comparison.promise(samples[number], errors[number], 1),
                promise_of_mean=comparison.promise(samples[number], errors[number], math.inf),
            )
        )
    candidates.sort(key=lambda c: (-comparison.mean(samples[c.number]), c.number))
    differ = control is None and len(candidates) > 1 and comparison.differ(samples[n] for n in sources)
    verdict, certain = _verdict(candidates, differ=differ)
    like = data.info(study.space.data).test_like_training
    return Confirmation(name, tuple(candidates), verdict, certain, missing, fresh_cuts, like)


def _verdict(ranked: Sequence[Candidate], *, differ: bool) -> tuple[str, bool]:
    """Return the verdict on the winner in words, and whether it is better than the baseline beyond chance.

    `differ` says whether candidates without a baseline differ beyond chance.
    """
    winner = ranked[0]
    if winner.baseline is not None:
        return "the baseline itself, with the highest mean: the search brought nothing better", False
    if winner.gap is None:
        if differ:
            return "the best of those trained again; there is no baseline to compare it with", False
        return "not distinguishable from the others, and there is no baseline to compare with: no winner", False
    middle = (winner.gap.low + winner.gap.high) / 2
    size = f"{abs(middle):.4f} ± {winner.gap.half:.4f}"
    if winner.gap.low > 0:
        return f"better than the baseline by {size}", True
    return f"not distinguishable from the baseline (the gap is {'-' if middle < 0 else ''}{size}): no winner", False
