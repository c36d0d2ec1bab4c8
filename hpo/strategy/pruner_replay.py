"""What a pruner would have done with a study's curves: each is reported again, and the pruner asked.

Nothing is trained. The trials run one after another, in the order of their numbers. A curve that ends before training
would is carried on by the growth of the others (`hpo.strategy.growth`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.pruners import NopPruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from hpo.optuna_compat import quiet
from hpo.optuna_compat import trial_id as id_of_trial
from hpo.recipe import Pruner
from hpo.store.database import trial_rows
from hpo.store.record import TrialAttributes
from hpo.strategy.growth import Curve, Growth, schedule_of
from hpo.strategy.pruner_view import PrunerView
from hpo.strategy.pruners import make_pruner
from hpo.strategy.study_cache import StudyCache


@dataclass(frozen=True)
class KeptCurve:
    """A finished trial, with all that is known of its curve, perhaps from a later training of the same."""

    trial: FrozenTrial
    values: tuple[float, ...]
    """Of the metric, after each epoch."""
    epochs: int
    """Epochs of the whole training."""
    whole: bool
    """Whether the curve ends where training does: at its last epoch, by early stopping, or as it diverged."""

    @property
    def diverged(self) -> bool:
        """Whether the training diverged."""
        return bool(TrialAttributes.of(self.trial).diverged)


@dataclass(frozen=True)
class Replayed:
    """What a pruner does with one trial."""

    end: int
    """Epochs after which it ends."""
    survives: bool
    """Whether it is trained to its end."""


class PrunerReplay:
    """A study's curves, carried on to the end of training, and what any pruner does with them."""

    def __init__(self, name: str, curves: Sequence[KeptCurve], epochs: int, best: float = 1.0) -> None:
        """`name` is the study's, from which Hyperband's brackets follow; the curves are in the order of their trials.

        `epochs` are those of the space, `best` is the metric's best possible value.
        """
        self._name, self._curves, self._epochs, self._best = name, curves, epochs, best
        learnable = [_curve(kept) for kept in curves if not kept.diverged]
        growth = Growth(learnable, best)
        self.values = [kept.values if kept.whole else self._carried_on(kept, growth) for kept in curves]
        """Of the metric after each epoch of each trial, those that are not known projected."""

    def _carried_on(self, kept: KeptCurve, growth: Growth) -> tuple[float, ...]:
        curve, known = _curve(kept), len(kept.values)
        shortfall = (self._best - kept.values[-1]) * growth.share_left(curve.schedule, curve.phase(known))
        ahead = (curve.phase(epoch) for epoch in range(known + 1, kept.epochs + 1))
        return (*kept.values, *(self._best - shortfall / growth.share_left(curve.schedule, phase) for phase in ahead))

    def outcome(self, pruner: Pruner) -> list[Replayed]:
        """Return what a pruner does with each trial. A baseline is never pruned."""
        cache = StudyCache(0, self._name, lambda changes: None)
        view = PrunerView(cache, self._epochs, pruner.compare, self._best)
        with quiet():  # some pruners are experimental
            study = Study(self._name, view, pruner=make_pruner(pruner, self._epochs))
            return [self._run(study, view, *each) for each in zip(self._curves, self.values, strict=True)]

    def _run(self, study: Study, view: PrunerView, kept: KeptCurve, values: Sequence[float]) -> Replayed:
        cache, key = view.cache, kept.trial.number
        cache.lease(_begun(kept.trial))
        attributes = TrialAttributes.of(kept.trial)
        for epoch, value in enumerate(values, start=1):
            cache.report(key, epoch, value)
            if epoch == len(values) or attributes.baseline is not None or isinstance(study.pruner, NopPruner):
                continue
            trial = cache.trial(key)
            view.begin_decision(trial)
            if study.pruner.prune(study, view.shown(trial)):
                cache.set_state(key, TrialState.PRUNED, [value])
                return Replayed(epoch, survives=False)
        if kept.diverged:
            cache.note(key, TrialAttributes.diverged.entry(value=True))
        cache.set_state(key, TrialState.PRUNED if kept.diverged else TrialState.COMPLETE, [values[-1]])
        return Replayed(len(values), survives=not kept.diverged)


def _curve(kept: KeptCurve) -> Curve:
    return Curve(schedule_of(kept.trial), kept.epochs, np.array(kept.values), kept.whole)


def _begun(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial before its first epoch, its id its number."""
    begun = trial_rows.empty(trial.number, trial.number)
    begun.params, begun.distributions = trial.params, trial.distributions
    cost = TrialAttributes.of(trial).cost
    begun.system_attrs = {} if cost is None else {TrialAttributes.cost.key: cost}
    assert id_of_trial(begun) == trial.number
    return begun
