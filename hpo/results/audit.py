"""Audit: did pruning miss anything? Pruned trials, chosen at random, are trained to the end.

Each keeps its configuration, seed and rows, so its value is what it would have had in the search. The trainings are
trials of a linked study `NAME-audit`.
"""

from dataclasses import dataclass

from scipy import stats

from hpo.config import WORST, Metric, TrialConfig
from hpo.errors import StudyError
from hpo.results import linked_study
from hpo.results.intervals import LEVEL, Interval
from hpo.results.linked_study import AUDIT
from hpo.results.pruner_comparison import PrunerComparison
from hpo.store import queries, studies
from hpo.store.database import trial_rows
from hpo.store.database.conditions import count, is_of
from hpo.store.database.connect import Store
from hpo.store.record import FINISHED, UNFINISHED, Repeat, State, TrialAttributes
from hpo.store.studies import StudyRecord
from hpo.store.views import TrialView
from hpo.strategy.samplers import derived_seed


@dataclass(frozen=True)
class Audited:
    """A pruned trial that was trained to the end."""

    number: int
    """Its number in the study."""
    config: TrialConfig
    pruned_at: int
    """Epochs after which it was pruned."""
    value_then: float
    """Value of the metric at that time."""
    value: float
    """Value at the end."""


@dataclass(frozen=True)
class Audit:
    """What pruned trials would have reached, the best first."""

    study: str
    """Name of the study that holds the trainings; empty if there is none."""
    metric: Metric
    winner: int
    """Number of the study's best trial."""
    winner_value: float
    pruned: int
    """Pruned trials of the study."""
    audited: tuple[Audited, ...]
    missing: int
    """Trainings that failed or are still to come."""
    pruners: PrunerComparison | None = None
    """What other pruners would have kept and saved, by the curves that are kept; where it was asked for."""

    @property
    def better(self) -> int:
        """How many of the audited trials ended above the study's best."""
        return sum(trial.value > self.winner_value for trial in self.audited)

    @property
    def share(self) -> Interval:
        """Exact 95 % interval of the share of all pruned trials that would have ended above the study's best."""
        return share_interval(self.better, len(self.audited), self.pruned)

    @property
    def loss(self) -> float:
        """How far the best audited trial ended above the study's best; 0 if none did."""
        return max([0.0, *(trial.value - self.winner_value for trial in self.audited)])

    @property
    def summary(self) -> str:
        """What pruning may have missed, in words."""
        if not self.audited:
            return f"None of {self.pruned} pruned trials was trained to the end yet."
        low, high = round(self.share.low * self.pruned), round(self.share.high * self.pruned)
        by = f", by up to {self.loss:.4f}" if self.better else ""
        return (
            f"{self.better} of {len(self.audited)} pruned trials, drawn at random, would have beaten the best{by}. "
            f"Of all {self.pruned} pruned trials, {low} to {high} would have (95 % interval)."
        )


def share_interval(hits: int, drawn: int, total: int) -> Interval:
    """Return the exact interval of a share in a finite population, after a sample without replacement.

    The hypergeometric distribution's tails, inverted (as Clopper and Pearson, 1934, do with the binomial one's).
    """
    tail = (1 - LEVEL) / 2
    possible = range(hits, total - (drawn - hits) + 1)
    plausible = [
        number
        for number in possible
        if stats.hypergeom.sf(hits - 1, total, number, drawn) > tail
        and stats.hypergeom.cdf(hits, total, number, drawn) > tail
    ]
    return Interval(plausible[0] / total, plausible[-1] / total)


def prepare(store: Store, study: StudyRecord, trials: int) -> StudyRecord:
    """Make or extend the study that audits another: `trials` of its pruned trials, drawn at random.

    Trainings that exist already stay and count. Raises: StudyError if no trial was pruned or none is complete, or if
    another study has the name.
    """
    pruned, _ = _auditable(store, study)
    auditing = linked_study.make(store, study, AUDIT, trials=min(trials, len(pruned)))
    with store.write() as connection:
        store.lock_study(connection, auditing.study_id)
        listed = {repeat.trial for repeat, _ in linked_study.trainings(store, auditing)}
        waiting = [trial for trial in pruned if trial.number not in listed]
        waiting.sort(key=lambda trial: derived_seed(study.recipe.seed, "audit", trial.number))
        ids = [trial.trial_id for trial in waiting[: max(0, trials - len(listed))]]
        for source in trial_rows.load_some(connection, ids):
            config = TrialAttributes.of(source).training_config(source.number)
            entries = [
                TrialAttributes.config.entry(config.to_dict()),
                TrialAttributes.confirms.entry(Repeat(source.number, 0)),
            ]
            trial_rows.add_waiting(store, connection, auditing.study_id, source, entries)
        total = count(connection, is_of(auditing.study_id, FINISHED + UNFINISHED))
    studies.update_budget(store, auditing, trials=total)
    return studies.load_study(store, auditing.name)


def _auditable(store: Store, study: StudyRecord) -> tuple[list[TrialView], TrialView]:
    """Return the pruned trials of a study and its best one. Raises: StudyError if it lacks either."""
    linked_study.refuse_linked(store, study)
    pruned = _pruned(store, study)
    with store.read() as connection:
        best = queries.best_trials(connection, study.study_id, 1)
    if not best:
        raise StudyError(f'Study "{study.name}" has no complete trial yet. Continue it: hpo run --study {study.name}')
    if not pruned:
        raise StudyError(f'Study "{study.name}" has no pruned trial: pruning has missed nothing.')
    return pruned, best[0]


def begin(store: Store, study: StudyRecord) -> Audit:
    """Return what is known without further trainings. Raises: StudyError if nothing was pruned or is complete."""
    pruned, best = _auditable(store, study)
    nothing = Audit("", study.metric, best.number, best.value or 0.0, len(pruned), (), 0)
    return evaluate(store, study) or nothing


def evaluate(store: Store, study: StudyRecord) -> Audit | None:
    """Return what a study's audit has shown; None if no pruned trial was trained to the end."""
    auditing = linked_study.find(store, study, AUDIT)
    if auditing is None:
        return None
    pruned = {trial.number: trial for trial in _pruned(store, study)}
    listed = [(repeat, trial) for repeat, trial in linked_study.trainings(store, auditing) if repeat.trial in pruned]
    audited = []
    for repeat, trial in listed:
        source = pruned[repeat.trial]
        if trial.state in FINISHED:
            value = trial.value if trial.state == State.COMPLETE and trial.value is not None else WORST[study.metric]
            last = max(source.curve)
            audited.append(Audited(source.number, source.config, last, source.curve[last], value))
    with store.read() as connection:
        best = queries.best_trials(connection, study.study_id, 1)
    if not audited or not best or best[0].value is None:
        return None
    audited.sort(key=lambda trial: (-trial.value, trial.number))
    missing = len({repeat.trial for repeat, _ in listed}) - len(audited)
    return Audit(auditing.name, study.metric, best[0].number, best[0].value, len(pruned), tuple(audited), missing)


def _pruned(store: Store, study: StudyRecord) -> list[TrialView]:
    """Return the trials that were pruned after an epoch or more and had no second chance, by number."""
    with store.read() as connection:
        trials = queries.pruned_trials(connection, study.study_id)
    return [trial for trial in trials if trial.curve and not trial.attributes.diverged]
