"""What a confirmation promises: where test scores of further trainings land, on rows like those that were seen."""

import math
from dataclasses import dataclass

from hpo.results.intervals import Interval


@dataclass(frozen=True)
class Promise:
    """Intervals of 95 % for the test score of further trainings, around the mean of those that were seen."""

    middle: float
    """The mean score of the fresh trainings."""
    one: Interval
    """For the score of one more training."""
    many: Interval | None = None
    """For the mean score of very many; None where it is not known, as in exports of version 0.1.0."""

    def of_mean(self, trainings: int) -> Interval:
        """Return the interval for the mean of so many trainings: each side between those of one and of very many.

        The squared distance of a bound has a part that the rows make, and one of training, which is 1/n of that of
        one training (the method of variance estimates recovery, as in `hpo.results.intervals.prediction_interval`).
        """
        if self.many is None:
            return self.one
        low = _between(self.middle - self.one.low, self.middle - self.many.low, trainings)
        high = _between(self.one.high - self.middle, self.many.high - self.middle, trainings)
        return Interval(self.middle - low, self.middle + high)


def _between(one: float, many: float, trainings: int) -> float:
    return math.hypot(one * math.sqrt(1 / trainings), many * math.sqrt(1 - 1 / trainings))
