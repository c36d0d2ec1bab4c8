"""A study as its sampler sees it.

Optuna's samplers learn from complete trials alone (TPE also ranks pruned ones, by the epoch that they reached). Here
they also learn from draws that broke a constraint; samplers for two objectives and the Gaussian process also from
pruned trials. All of these are shown as complete.
"""

import copy
import math
from collections.abc import Container, Iterable, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from hpo.optuna_compat import trial_id as id_of
from hpo.store.record import TrialAttributes
from hpo.strategy.cached_storage import CachedStorage
from hpo.strategy.growth import Curve, Growth, curve_of
from hpo.strategy.study_cache import StudyCache

Row = tuple[FrozenTrial, float]
"""A finished trial, and the value of the metric that the model is told."""


class SamplerView(CachedStorage):
    """Feasible trials and, as complete ones, infeasible draws; with two objectives also pruned trials."""

    def begin_draw(self, trial_id: int) -> None:
        """Take note that a trial is about to be drawn."""

    @override
    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = [t for t in self.shown() if states is None or t.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def shown(self) -> list[FrozenTrial]:
        """Return all trials as the sampler sees them, by number."""
        trials = self.cache.visible_trials()
        # TPE ranks infeasible draws behind all others whatever their value; others need one that does not stand out.
        worst = min((t.values[0] for t in trials if t.state == TrialState.COMPLETE), default=0.0)
        if self.cache.two_objectives:
            # Lower than the value of the whole training, but some trial of no larger cost is better anyway.
            trials = [as_complete(t, _last_value(t)) if t.state == TrialState.PRUNED else t for t in trials]
        infeasible = [as_complete(t, worst) for t in self.cache.infeasible_trials()]
        return sorted(trials + infeasible, key=lambda t: t.number)


class ModelView(SamplerView):
    """The rows that a Gaussian process is fitted to: one for each finished trial, all with the same parameters.

    A pruned trial is shown with the value at which it would have ended (`hpo.strategy.growth`). Values are clipped
    from below, so that the model need not describe the many configurations that learn nothing. Parameters that a
    trial does not have are set to the middle of their range: the parameter on which they depend tells that they are
    absent. Of many trials only the best are shown, and others at evenly spaced ranks.
    """

    CLIPPED = 0.15
    """Quantile of the values below which they are clipped. Chosen on learning curves of six tasks, 20 seeds."""
    PARENTS = 4
    """So many of the best trials are parents of others."""
    ROWS = 100
    """Most rows: the time of a draw grows with the third power of them."""

    def __init__(self, cache: StudyCache, epochs: int, best: float = 1.0, least_rows: int = 0) -> None:
        """`epochs` are those of the space, `best` is the metric's best possible value."""
        super().__init__(cache)
        self._epochs, self._best = epochs, best
        self._rows = max(self.ROWS, least_rows)
        self._shown: list[FrozenTrial] | None = None
        self._drawn = -1
        self._curves: dict[int, tuple[FrozenTrial, Curve | None]] = {}
        """By id: a finished trial of the cache, and its learning curve."""

    @override
    def begin_draw(self, trial_id: int) -> None:
        self._shown, self._drawn = None, trial_id

    @override
    def shown(self) -> list[FrozenTrial]:
        if self._shown is None:
            trials = self.cache.visible_trials()
            rows = self._informative(self._clipped(self.values_of(t for t in trials if t.state.is_finished())))
            running = [t for t in trials if t.state == TrialState.RUNNING and t.params and id_of(t) != self._drawn]
            known = sorted([as_complete(*row) for row in rows] + running, key=lambda t: t.number)
            space = distributions_of(known)
            self._shown = [_with_all_params(trial, space) for trial in known]
        return self._shown

    def values_of(self, finished: Iterable[FrozenTrial]) -> list[Row]:
        """Return finished trials, each with its value at the end of training."""
        curves = [(trial, self._curve(trial)) for trial in finished]
        growth = Growth((curve for _, curve in curves if curve is not None), self._best)
        return [(t, _last_value(t) if curve is None else growth.projected(curve)) for t, curve in curves]

    def _curve(self, trial: FrozenTrial) -> Curve | None:
        before, curve = self._curves.get(id_of(trial), (None, None))
        if before is not trial:  # a changed trial is another object
            curve = curve_of(trial, self._epochs)
            self._curves[id_of(trial)] = (trial, curve)
        return curve

    def parents(self, least: int) -> list[tuple[FrozenTrial, float]]:
        """Return the trials near which others are worth a try, each with a weight; none of less than `least` trials.

        They are the best by value at the end of training, the k-th with a weight of 1/k; with two objectives, those
        that no other one beats in value and cost, with equal weights. Their distributions are the latest of the study.
        """
        trials = self.cache.visible_trials()
        rows = self.values_of(t for t in trials if t.state.is_finished())
        if len(rows) < least:
            return []
        if self.cache.two_objectives:
            best = [(trial, 1.0) for trial, _ in _first_front(rows)]
        else:
            ranked = sorted(rows, key=lambda r: (-r[1], r[0].number))[: self.PARENTS]
            best = [(trial, 1 / rank) for rank, (trial, _) in enumerate(ranked, 1)]
        space = distributions_of(trials)
        return [(_with_distributions(trial, space), weight) for trial, weight in best]

    def _clipped(self, rows: list[Row]) -> list[Row]:
        """Return the rows with values clipped from below, and the infeasible draws with the lowest value."""
        floor = float(np.quantile([value for _, value in rows], self.CLIPPED)) if rows else 0.0
        # With two objectives every row needs both; a draw that broke a limit before its cost was measured has one.
        infeasible = [
            t
            for t in self.cache.infeasible_trials()
            if not self.cache.two_objectives or TrialAttributes.of(t).cost is not None
        ]
        return [(t, max(value, floor)) for t, value in rows] + [(t, floor) for t in infeasible]

    def _informative(self, rows: list[Row]) -> list[Row]:
        """Return at most so many rows as are allowed: the better half of them the best, the others spread evenly."""
        if len(rows) <= self._rows:
            return rows
        ranked = _by_fronts(rows) if self.cache.two_objectives else sorted(rows, key=lambda r: (-r[1], r[0].number))
        best = self._rows // 2
        others = np.linspace(best, len(ranked) - 1, self._rows - best).round().astype(int)
        return ranked[:best] + [ranked[i] for i in others]


def as_complete(trial: FrozenTrial, value: float) -> FrozenTrial:
    """Return a trial as a complete one, with a value of the metric, and its cost if it has one."""
    shown = copy.copy(trial)
    cost = TrialAttributes.of(trial).cost
    shown.state, shown.values = TrialState.COMPLETE, [value] if cost is None else [value, cost]
    return shown


def distributions_of(trials: Iterable[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Return the distribution of every parameter that any trial has, from the latest that has it; by name."""
    latest: dict[str, BaseDistribution] = {}
    for trial in trials:
        latest |= trial.distributions
    return dict(sorted(latest.items()))


def middle_of(distribution: BaseDistribution) -> Any:
    """Return the value in the middle of a range on its own scale, or the first choice."""
    match distribution:
        case CategoricalDistribution():
            return distribution.choices[0]
        case FloatDistribution(low=low, high=high, log=log, step=step):
            middle = math.sqrt(low * high) if log else (low + high) / 2
            return middle if step is None else low + step * round((middle - low) / step)
        case IntDistribution(low=low, high=high, log=log, step=step):
            middle = math.sqrt(low * high) if log else (low + high) / 2
            return low + step * round((middle - low) / step)
    raise TypeError(f"unknown distribution {distribution}")


def _with_distributions(trial: FrozenTrial, space: dict[str, BaseDistribution]) -> FrozenTrial:
    shown = copy.copy(trial)
    shown.distributions = {name: space[name] for name in trial.params}
    return shown


def _with_all_params(trial: FrozenTrial, space: dict[str, BaseDistribution]) -> FrozenTrial:
    absent = {name: middle_of(distribution) for name, distribution in space.items() if name not in trial.params}
    shown = copy.copy(trial)
    shown.params, shown.distributions = trial.params | absent, dict(space)
    return shown


def _last_value(trial: FrozenTrial) -> float:
    if trial.state == TrialState.COMPLETE:
        return float(trial.values[0])
    return float(trial.intermediate_values[max(trial.intermediate_values)]) if trial.intermediate_values else 0.0


def _by_fronts(rows: Sequence[Row]) -> list[Row]:
    """Return rows with a cost front by front: first those that no other one beats in value and cost."""
    left, ranked = list(rows), []
    while left:
        front = _first_front(left)
        ranked += front
        in_front = {trial.number for trial, _ in front}
        left = [row for row in left if row[0].number not in in_front]
    return ranked


def _first_front(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that no other one beats in value and cost, the highest value first."""
    costs = {trial.number: TrialAttributes.of(trial).cost or 0.0 for trial, _ in rows}
    cheapest, front = math.inf, []
    for row in sorted(rows, key=lambda r: (-r[1], costs[r[0].number], r[0].number)):
        if costs[row[0].number] < cheapest:
            cheapest = costs[row[0].number]
            front.append(row)
    return front
