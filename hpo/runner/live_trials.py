"""What a worker records of the trials that it runs: curves, attributes, costs, and how each one ended."""

import itertools

from optuna.trial import TrialState

from hpo.config import WORST
from hpo.constraints import Costs
from hpo.store.attributes import Entry
from hpo.store.record import Failure, TrialAttributes
from hpo.store.studies import StudyRecord
from hpo.strategy.study_cache import StudyCache, is_infeasible, is_unchecked
from hpo.strategy.study_search import StudySearch


class LiveTrials:
    """The trials that one worker runs, by their ids."""

    def __init__(self, study: StudyRecord, cache: StudyCache, search: StudySearch) -> None:
        self.study = study
        self.ids: set[int] = set()
        """Trials that this worker has leased and not ended."""
        self._cache, self._search = cache, search

    def note(self, trial_id: int, *entries: Entry) -> None:
        """Set attributes of a trial."""
        self._cache.note(trial_id, *entries)

    def report(self, trial_id: int, epoch: int, value: float) -> None:
        """Report the value of the metric after an epoch."""
        self._cache.report(trial_id, epoch, value)

    def restore_curve(self, trial_id: int, values: dict[int, float]) -> None:
        """Replace all reports of a resumed trial by a curve."""
        self._cache.set_curve(trial_id, values)

    def should_prune(self, trial_id: int) -> bool:
        """Say whether a trial is to end after its latest report, compared with the other trials.

        A baseline is never pruned: the winner is measured against it. Neither is a second chance.
        """
        attributes = TrialAttributes.of(self._cache.trial(trial_id))
        return attributes.revives is None and self._search.should_prune(trial_id) and attributes.baseline is None

    # How a trial ends.

    def complete(self, trial_id: int, value: float) -> None:
        """End a trial after its last epoch."""
        self._end(trial_id, TrialState.COMPLETE, value)

    def prune(self, trial_id: int) -> None:
        """End a trial early; its value is the last one reported."""
        trial = self._cache.trial(trial_id)
        last = trial.intermediate_values[trial.last_step] if trial.last_step is not None else None
        self._end(trial_id, TrialState.PRUNED, last)

    def diverge(self, trial_id: int, message: str) -> None:
        """End a trial whose loss was not finite: pruned, with the worst value, so that the sampler learns from it."""
        failure = TrialAttributes.failure.entry(Failure("diverged", message))
        self.note(trial_id, failure, TrialAttributes.diverged.entry(value=True))
        trial, worst = self._cache.trial(trial_id), WORST[self.study.metric]
        self.report(trial_id, (trial.last_step or 0) + 1, worst)
        self._end(trial_id, TrialState.PRUNED, worst)

    def fail(self, trial_id: int, kind: str, message: str) -> None:
        """End a trial that could not be trained."""
        self.note(trial_id, TrialAttributes.failure.entry(Failure(kind, message)))
        self._end(trial_id, TrialState.FAIL, None)

    def _end(self, trial_id: int, state: TrialState, value: float | None) -> None:
        self.ids.discard(trial_id)
        self._search.finish(trial_id, state, value)

    # Costs and constraints.

    def has_costs(self, trial_id: int) -> bool:
        """Say whether a trial's costs were measured, perhaps under another number."""
        trial = self._cache.trial(trial_id)
        checked = bool(trial.constraints) or not self.study.space.constraints.limits
        return checked and (self.study.recipe.cost is None or TrialAttributes.of(trial).cost is not None)

    def note_costs(self, trial_id: int, costs: Costs) -> None:
        """Record the costs of a trial's untrained network, and by how much they exceed the limits of the space."""
        excesses = self.study.space.constraints.excess(costs).items()
        limits = [TrialAttributes.constraints.entry(f"max_{name}", excess) for name, excess in excesses]
        self.note(trial_id, TrialAttributes.costs.entry(costs), *limits)
        cost = self.study.recipe.cost
        if cost is not None and cost in costs:
            self.note(trial_id, TrialAttributes.cost.entry(costs[cost]))

    def reject(self, trial_id: int, message: str) -> int:
        """End a trial that broke a constraint before training: it uses no budget, and the sampler learns from it.

        Returns how many of the study's latest draws were rejected in a row.
        """
        excused = TrialAttributes.excused.entry(f"infeasible: {message}")
        self.note(trial_id, TrialAttributes.infeasible.entry(message), excused)
        self._end(trial_id, TrialState.FAIL, None)
        drawn = [t for t in self._cache.all_trials() if t.state != TrialState.WAITING and not is_unchecked(t)]
        return sum(1 for _ in itertools.takewhile(is_infeasible, reversed(drawn)))
