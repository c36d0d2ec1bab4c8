"""How long a draw would train, predicted from the study's own trials, and whether it is worth that time.

A sampler that asks for the best configuration alone proposes wide networks in small batches as readily as others,
though one of them takes the time of ten. Expected improvement per second (Snoek, Larochelle and Adams 2012,
arXiv:1206.2944) asks for what is gained in the same time. Here, whatever the sampler, a draw that would train longer
than the best configurations is kept with the inverse of that ratio as its probability, and else drawn again.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial
from typing_extensions import TypeIs

from hpo.store.record import TrialAttributes
from hpo.strategy.sampler_view import distributions_of, middle_of

LEAST_TRIALS = 10
"""Fewest trials from which times are predicted."""
MOST_TRIALS = 200
"""The newest so many trials are learned from: a fit takes a few milliseconds."""
RIDGE = 1.0
"""Weight of the squared coefficients (features have a variance of 1): it counts as much as one trial."""
EPOCHS = "epochs"
"""The parameter that multiplies the time of an epoch, where a space searches it."""


class TrainingTime:
    """The logarithm of a training's time, linear in the logarithms of its numbers and in its choices (ridge)."""

    def __init__(self, timed: Sequence[tuple[FrozenTrial, float]]) -> None:
        """Fit the model to trials with their seconds per epoch."""
        self._space = distributions_of(trial for trial, _ in timed)
        rows = np.array([self._features(trial.params) for trial, _ in timed])
        times = np.log([seconds for _, seconds in timed])
        self._mean, self._scale = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-9)
        rows = (rows - self._mean) / self._scale
        self._weights = np.linalg.solve(rows.T @ rows + RIDGE * np.eye(rows.shape[1]), rows.T @ (times - times.mean()))

    @classmethod
    def learned_from(cls, finished: Iterable[FrozenTrial]) -> "TrainingTime | None":
        """Return the model of a study, given its finished trials by number; None while too few times are known."""
        timed = [(trial, seconds) for trial in finished if (seconds := seconds_per_epoch(trial)) is not None]
        return cls(timed[-MOST_TRIALS:]) if len(timed) >= LEAST_TRIALS else None

    def log_ratio(self, params: dict[str, Any]) -> float:
        """Return the logarithm of the predicted time of a whole training, but for a term that all trainings share."""
        of_an_epoch = float(self._weights @ ((self._features(params) - self._mean) / self._scale))
        return of_an_epoch + math.log(max(1, params.get(EPOCHS, 1)))

    def _features(self, params: dict[str, Any]) -> NDArray[np.float64]:
        space = {name: each for name, each in self._space.items() if name != EPOCHS}
        return np.concatenate(
            [[], *(_numbers(params.get(name, middle_of(each)), each) for name, each in space.items())]
        )


def seconds_per_epoch(trial: FrozenTrial) -> float | None:
    """Return the mean seconds of a trial's epochs; None where they are not known."""
    seconds, epochs = TrialAttributes.of(trial).seconds, len(trial.intermediate_values)
    return seconds / epochs if seconds and epochs and 0 < seconds < math.inf else None


def chance_to_keep(time: TrainingTime, params: dict[str, Any], best: Sequence[tuple[FrozenTrial, float]]) -> float:
    """Return the probability, in 0..1, with which a draw is kept, given the best trials with their weights."""
    usual = np.average([time.log_ratio(trial.params) for trial, _ in best], weights=[weight for _, weight in best])
    return math.exp(min(0.0, float(usual) - time.log_ratio(params)))


def _numbers(value: Any, distribution: BaseDistribution) -> NDArray[np.float64]:
    """Return a value as features: a number on a logarithmic scale where it is positive, another choice as 0 and 1."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            numbers = [float(each) for each in choices if _is_number(each)]
            if len(numbers) < len(choices):
                return np.array([float(each == value) for each in choices])
            least = min(numbers)
        case FloatDistribution(low=low) | IntDistribution(low=low):
            least = float(low)
        case _:
            raise TypeError(f"unknown distribution {distribution}")
    return np.array([math.log(max(value, least)) if least > 0 else float(value)])


def _is_number(value: object) -> TypeIs[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
