"""What other pruners would have kept and saved, from the curves that a study keeps: nothing is trained."""

from collections.abc import Iterator
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from hpo.config.metrics import BEST
from hpo.optuna_compat import trial_id as id_of
from hpo.recipe import COMPARING, Pruner
from hpo.results import linked_study
from hpo.results.charts import searched_trials
from hpo.results.linked_study import AUDIT
from hpo.store.database import trial_rows
from hpo.store.database.connect import Store
from hpo.store.record import State, TrialAttributes
from hpo.store.studies import StudyRecord
from hpo.strategy.pruner_replay import KeptCurve, PrunerReplay

MOST = 300
OTHERS = ("none", "successive_halving", "hyperband", "median", "percentile", "patient")
"""Pruners that a study's own is compared with; threshold needs a value that nothing suggests."""


@dataclass(frozen=True)
class PrunerOutcome:
    """What one pruner would have done."""

    pruner: Pruner
    is_own: bool
    """Whether it is the study's own."""
    survivors: int
    """Trials that it trains to the end."""
    estimated: int
    """Survivors of which only a part was trained: how they end is a projection."""
    epochs: int
    """Epochs that it trains, of all trials together."""
    winner_survives: bool

    @property
    def name(self) -> str:
        """The pruner, with what it compares if that is not the values as they stand."""
        return self.pruner.name + (", projections" if self.pruner.compare == "projection" else "")


@dataclass(frozen=True)
class PrunerComparison:
    """The study's own pruner and others, on the same trials in the same order, one at a time."""

    trials: int
    of: int
    """Finished trials of the study: where it has very many, only the first are compared."""
    partly_trained: int
    """Trials of which only a part was trained; the rest of their curves is a projection."""
    winner: int
    """Number of the best of the trials."""
    winner_trained_as: int
    """Its number as a second chance; the same if it had none."""
    epochs: int
    """Epochs that training all to the end takes."""
    outcomes: tuple[PrunerOutcome, ...]
    """The study's own pruner first."""

    @property
    def summary(self) -> str:
        """What was compared, and on what it rests, in words."""
        first = f"the first {self.trials} of {self.of}" if self.trials < self.of else f"the {self.trials}"
        revived = self.winner_trained_as != self.winner
        again = f", whose second chance is trial {self.winner_trained_as}" if revived else ""
        projected = (
            f" Of {self.partly_trained} of them only a part was trained; the rest of their curves is projected."
            if self.partly_trained
            else ""
        )
        return (
            f"What each pruner does with {first} trials, one after another; the best of them is trial {self.winner}"
            f"{again}.{projected}"
        )

    def saved(self, outcome: PrunerOutcome) -> float:
        """Return the share of the epochs that a pruner saves, 0 to 1."""
        return 1 - outcome.epochs / self.epochs


@dataclass(frozen=True)
class _Trial:
    """A finished trial, and the longest training of its configuration, seed and rows."""

    source: FrozenTrial
    trained: FrozenTrial
    in_search: bool
    """Whether that training was one of the search; else of an audit."""


def compare_pruners(store: Store, study: StudyRecord, most: int = MOST) -> PrunerComparison | None:
    """Return what other pruners would have done with a study's first trials; None where none of them is complete.

    They have the study's own rungs and first epochs, else the defaults of a recipe. Trainings of pruned trials by an
    audit or as second chances count as known. At most `most` trials are compared: the time grows with their square.
    """
    trials = _trials(store, study)
    complete = [trial for trial in trials[:most] if trial.trained.state == TrialState.COMPLETE and trial.in_search]
    if not complete:
        return None
    best = max(complete, key=lambda trial: (trial.trained.values[0], -trial.source.number))
    winner = best.source.number
    curves = [_kept(trial.source, trial.trained) for trial in trials[:most]]
    replay = PrunerReplay(study.name, curves, study.effective_space.max_epochs, BEST[study.metric])
    chosen = study.recipe.pruner
    outcomes = []
    for pruner in (chosen, *_others(chosen)):
        results = list(zip(curves, replay.outcome(pruner), strict=True))
        outcomes.append(
            PrunerOutcome(
                pruner=pruner,
                is_own=pruner is chosen,
                survivors=sum(result.survives for _, result in results),
                estimated=sum(result.survives and not kept.whole for kept, result in results),
                epochs=sum(result.end for _, result in results),
                winner_survives=any(result.survives for kept, result in results if kept.trial.number == winner),
            )
        )
    partly = sum(not kept.whole for kept in curves)
    total = sum(map(len, replay.values))
    return PrunerComparison(len(curves), len(trials), partly, winner, best.trained.number, total, tuple(outcomes))


def _others(pruner: Pruner) -> Iterator[Pruner]:
    for name in OTHERS:
        for compare in ("value", "projection") if name in COMPARING[:1] else ("value",):
            if (name, compare) != (pruner.name, pruner.compare):
                yield pruner.model_copy(update={"name": name, "compare": compare})


def _trials(store: Store, study: StudyRecord) -> list[_Trial]:
    """Return the trials of a study that reported anything, in their order."""
    with store.read() as connection:
        everything = trial_rows.load_trials(connection, study.study_id)
    numbered, later = {trial.number: trial for trial in everything}, _audited(store, study)
    trials = []
    for trial in searched_trials(everything):
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED) or not trial.intermediate_values:
            continue
        revives = TrialAttributes.of(trial).revives
        source = trial if revives is None else numbered.get(revives, trial)
        audited = None if trial.state == TrialState.COMPLETE else later.get(source.number)
        trials.append(_Trial(source, audited or trial, audited is None))
    return sorted(trials, key=lambda trial: trial.source.number)


def _audited(store: Store, study: StudyRecord) -> dict[int, FrozenTrial]:
    """Return the complete trainings of a study's audit, by the trial that they trained to the end."""
    auditing = linked_study.find(store, study, AUDIT)
    if auditing is None:
        return {}
    listed = {trial.trial_id: repeat.trial for repeat, trial in linked_study.trainings(store, auditing)}
    with store.read() as connection:
        trained = trial_rows.load_trials(connection, auditing.study_id)
    complete = [trial for trial in trained if trial.state.name == State.COMPLETE]
    return {listed[id_of(trial)]: trial for trial in complete if id_of(trial) in listed}


def _kept(source: FrozenTrial, trained: FrozenTrial) -> KeptCurve:
    """Return a trial with the longer curve of a later training of the same."""
    attributes, reports = TrialAttributes.of(trained), trained.intermediate_values
    whole = trained.state == TrialState.COMPLETE or bool(attributes.diverged)
    values = tuple(reports[epoch] for epoch in sorted(reports))
    epochs = attributes.training_config(trained.number).epochs if attributes.config is not None else len(values)
    return KeptCurve(source, values, epochs, whole)
