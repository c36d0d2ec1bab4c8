"""What other pruners would have kept and saved: as if a study had had them."""

from pathlib import Path

import pytest

from hpo.errors import StudyError
from hpo.recipe import Budget, Pruner, Sampler, StudyRecipe
from hpo.results import audit
from hpo.results.pruner_comparison import compare_pruners
from hpo.service.audit import begin_audit
from hpo.store import studies
from hpo.store.database.connect import Store
from hpo.store.studies import StudyRecord
from hpo.training.simulated import SimulatedEngine
from tests.helpers.studies import MakeStudy, on_sqlite, small_space, trials_of, work

PRUNERS = ("successive_halving", "median", "patient")
"""Not hyperband: its brackets follow from the study's name."""


def searched(store: Store, name: str, pruner: str, folder: Path) -> StudyRecord:
    """Return a study of 30 trials, the same for every pruner, as nothing is learned from their values."""
    recipe = StudyRecipe(
        budget=Budget(trials=30), sampler=Sampler(name="random"), pruner=Pruner.model_validate({"name": pruner})
    )
    assert studies.create(store, name, "small", small_space(epochs=9), recipe, "f" * 64)
    study = studies.load_study(store, name)
    work(store, study, SimulatedEngine(), folder)
    return study


@pytest.mark.slow
@on_sqlite
def test_whole_curves_tell_what_each_pruner_would_have_done(store: Store, tmp_path: Path) -> None:
    comparison = compare_pruners(store, searched(store, "whole", "none", tmp_path))
    assert comparison is not None and (comparison.trials, comparison.partly_trained) == (30, 0)
    assert comparison.epochs == 30 * 9 and comparison.outcomes[0].is_own and comparison.outcomes[0].survivors == 30
    outcomes = {each.name: each for each in comparison.outcomes}
    for pruner in PRUNERS:
        real = trials_of(store, searched(store, pruner, pruner, tmp_path))
        survivors = {t.number for t in real if t.state.name == "COMPLETE"}
        outcome = outcomes[pruner]
        assert (outcome.survivors, outcome.estimated) == (len(survivors), 0), pruner
        assert outcome.epochs == sum(t.last_step or 0 for t in real), pruner
        assert outcome.winner_survives == (comparison.winner in survivors), pruner


@pytest.mark.slow
@on_sqlite
def test_curves_that_end_early_are_carried_on(store: Store, tmp_path: Path) -> None:
    study = searched(store, "halved", "successive_halving", tmp_path)
    real = trials_of(store, study)
    pruned = [t for t in real if t.state.name == "PRUNED"]
    first = begin_audit(store, study)
    assert first.audited == () and first.pruners is not None and f"None of {len(pruned)} pruned trials" in first.summary
    own, none, *others = first.pruners.outcomes
    assert own.survivors == 30 - len(pruned) and own.epochs == sum(t.last_step or 0 for t in real)
    assert own.winner_survives and own.estimated == 0
    assert (none.name, none.survivors, none.estimated) == ("none", 30, len(pruned)) and none.epochs == 30 * 9
    assert first.pruners.saved(none) == 0 < first.pruners.saved(own) < 1
    assert {"hyperband", "successive_halving, projections"} < {each.name for each in others}
    # What an audit trains to the end is known from then on.
    work(store, audit.prepare(store, study, 30), SimulatedEngine(), tmp_path / "audit")
    after = begin_audit(store, study)
    assert after.pruners is not None and after.pruners.partly_trained == 0
    whole = compare_pruners(store, searched(store, "whole", "none", tmp_path))
    assert whole is not None
    exact = {each.name: (each.survivors, each.epochs) for each in whole.outcomes if each.name in PRUNERS}
    assert {n: (e.survivors, e.epochs) for e in after.pruners.outcomes if (n := e.name) in exact} == exact
    few = compare_pruners(store, study, most=10)
    assert few is not None and (few.trials, few.of) == (10, 30) and "the first 10 of 30 trials" in few.summary


@on_sqlite
def test_what_cannot_be_compared_says_so(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=2)
    assert compare_pruners(store, study) is None
    work(store, study, SimulatedEngine(), tmp_path)
    with pytest.raises(StudyError, match="has no pruned trial"):
        begin_audit(store, study)
