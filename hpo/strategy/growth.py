"""How much a learning curve still gains: it makes trials comparable that end early, or follow different schedules.

After three of twenty epochs a one-cycle run still climbs to its highest learning rate, while a run at a constant rate
is nearly where it ends. Their values compare fairly only after each is carried on to the end of training.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from hpo.store.record import TrialAttributes

PRIOR_CURVES = 2.0
"""The growth of all schedules together counts as much as so many curves of the schedule in question."""
KNOWN_CURVES = 2
"""Complete trainings of a schedule from which on it is compared with others."""
RELEARNED = 200
"""The growth is learned anew once one in so many of the finished trials is new."""
LEAST_SHORTFALL = 1e-3
"""Smaller differences to the best possible value count as this one, when growth is learned."""


@dataclass(frozen=True)
class Curve:
    """Values of the metric after each epoch of one training. A phase is the share of its epochs, 0 < phase <= 1."""

    schedule: str
    """Name of the learning-rate schedule, and of the average of weights if one is validated."""
    epochs: int
    """Epochs of the whole training."""
    values: NDArray[np.float64]
    """After the first epoch, the second, and so on."""
    whole: bool
    """Whether the training is complete, perhaps by early stopping: then the last value is that of the end."""

    @property
    def reached(self) -> float:
        """The phase up to which it goes."""
        return 1.0 if self.whole else self.phase(len(self.values))

    def phase(self, epoch: int) -> float:
        """Return the phase after an epoch, counted from 1."""
        return min(1.0, epoch / self.epochs)

    def at(self, phase: float) -> float:
        """Return the value at a phase that it has reached, interpolated between epochs."""
        return float(np.interp(phase * self.epochs, np.arange(1, len(self.values) + 1), self.values))


def curve_of(trial: FrozenTrial, epochs: int) -> Curve | None:
    """Return the learning curve of a trial of a space with so many epochs; None if it has no report or diverged."""
    reports = trial.intermediate_values
    if not reports or TrialAttributes.of(trial).diverged:
        return None
    values = np.array([reports[epoch] for epoch in sorted(reports)])
    whole = trial.state == TrialState.COMPLETE
    return Curve(schedule_of(trial), int(trial.params.get("epochs", epochs)), values, whole)


def schedule_of(trial: FrozenTrial) -> str:
    """Return the name of a trial's learning-rate schedule, and of its average of weights if it has one.

    Both are read from its parameters, which all workers know; where the space does not search them, all trials have the
    same.
    """
    schedule, average = (str(trial.params.get(f"{part}.name", "none")) for part in ("schedule", "average"))
    return schedule if average == "none" else f"{schedule} {average}"


class Growth:
    """The median growth of a study's curves from one phase to the next at which trials were stopped, by schedule.

    Growth is the share of the shortfall, the difference to the best possible value, that is still there later. On six
    tasks, after 15 % of the epochs, its median predicts the end with a median error 0 to 83 % smaller than that of a
    growth that is added to the value (`benchmarks/rungs.py`).
    """

    def __init__(self, curves: Iterable[Curve], best: float = 1.0) -> None:
        """`best` is the metric's best possible value (`hpo.config.metrics.BEST`)."""
        self._curves, self._best = list(curves), best
        self._log_shares: dict[tuple[str, float], float] = {}

    @classmethod
    def of(cls, trials: Iterable[FrozenTrial], epochs: int, best: float = 1.0) -> "Growth":
        """Return the growth of the curves of finished trials of a space with so many epochs."""
        curves = (curve_of(trial, epochs) for trial in trials if trial.state.is_finished())
        return cls((curve for curve in curves if curve is not None), best)

    @cached_property
    def _stops(self) -> list[float]:
        """The phases at which curves end, ascending."""
        return sorted({curve.reached for curve in self._curves})

    @cached_property
    def _whole(self) -> Counter[str]:
        return Counter(curve.schedule for curve in self._curves if curve.whole)

    def is_known(self, schedule: str) -> bool:
        """Say whether enough trainings of a schedule are complete to tell how much it gains."""
        return self._whole[schedule] >= KNOWN_CURVES

    def share_left(self, schedule: str, phase: float) -> float:
        """Return the share of the shortfall at a phase that a curve of a schedule is expected to end with.

        It is the product of the median shares from each stop to the next, taken over the curves that went on. 1 where
        none did.
        """
        return math.exp(self._log_share(schedule, phase))

    def _log_share(self, schedule: str, phase: float) -> float:
        key = (schedule, phase)
        if key not in self._log_shares:
            following = next((stop for stop in self._stops if stop > phase + 1e-9), None)
            self._log_shares[key] = (
                0.0
                if following is None
                else self._step(schedule, phase, following) + self._log_share(schedule, following)
            )
        return self._log_shares[key]

    def _step(self, schedule: str, begin: float, end: float) -> float:
        """Return the log of the median share between two phases: the schedule's own, drawn towards that of all."""
        went_on = [curve for curve in self._curves if curve.reached >= end - 1e-9]
        shares = np.array(
            [self._log_shortfall(curve.at(end)) - self._log_shortfall(curve.at(begin)) for curve in went_on]
        )
        same = shares[[curve.schedule == schedule for curve in went_on]]
        of_all = float(np.median(shares))
        if not same.size:
            return of_all
        return (len(same) * float(np.median(same)) + PRIOR_CURVES * of_all) / (len(same) + PRIOR_CURVES)

    def _log_shortfall(self, value: float) -> float:
        return math.log(max(self._best - value, LEAST_SHORTFALL))

    def projected(self, curve: Curve, epoch: int | None = None) -> float:
        """Return the value at the end of training that a curve promises after an epoch, by default its latest."""
        if curve.whole and epoch is None:
            return float(curve.values[-1])
        reached = len(curve.values) if epoch is None else epoch
        shortfall = self._best - float(curve.values[reached - 1])
        return self._best - shortfall * self.share_left(curve.schedule, curve.phase(reached))


class LearnedGrowth:
    """The growth of a study's curves, learned anew only where enough of its trials are new."""

    def __init__(self, epochs: int, best: float) -> None:
        """`epochs` are those of the space, `best` is the metric's best possible value."""
        self._epochs, self._best = epochs, best
        self._growth, self._learned_from = Growth(()), -1

    def of(self, finished: Sequence[FrozenTrial]) -> Growth:
        """Return the growth of the curves of finished trials: the same object as long as it is not learned anew."""
        if abs(len(finished) - self._learned_from) > len(finished) // RELEARNED:
            self._growth, self._learned_from = Growth.of(finished, self._epochs, self._best), len(finished)
        return self._growth
