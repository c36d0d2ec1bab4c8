"""Audit: pruned trials are trained to the end, and what pruning may have missed is said."""

from pathlib import Path

import numpy as np
import pytest

from hpo.errors import StudyError
from hpo.results import audit, confirmation
from hpo.results.audit import share_interval
from hpo.store.database.connect import Store
from hpo.training.simulated import SimulatedEngine
from tests.helpers.studies import MakeStudy, on_sqlite, trials_of, work


@pytest.mark.slow
def test_the_interval_is_exact() -> None:
    everything = share_interval(2, 10, 10)
    assert (everything.low, everything.high) == (0.2, 0.2)
    nothing = share_interval(0, 6, 40)
    assert nothing.low == 0 and 0.3 < nothing.high < 0.5
    chance = np.random.default_rng(0)
    for number in (0, 3, 20, 39):
        draws = chance.hypergeometric(number, 40 - number, 6, size=400)
        covers = {hits: number / 40 in share_interval(hits, 6, 40) for hits in set(draws.tolist())}
        covered = [covers[hits] for hits in draws.tolist()]
        assert np.mean(covered) >= 0.94, number


@pytest.mark.slow
def test_pruned_trials_are_trained_to_their_end(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=30, space={"epochs": 9}, pruner="successive_halving")
    work(store, study, SimulatedEngine(), tmp_path)
    before = trials_of(store, study)
    pruned = {t.number: t for t in before if t.state.name == "PRUNED"}
    auditing = audit.prepare(store, study, 5)
    assert audit.evaluate(store, study) is None
    work(store, auditing, SimulatedEngine(), tmp_path)
    result = audit.evaluate(store, study)
    assert result is not None and result.study == "s-audit" and result.missing == 0
    assert len(result.audited) == 5 and result.pruned == len(pruned)
    for trial in result.audited:
        source = pruned[trial.number]
        assert trial.config.to_dict() == source.user_attrs["config"], "the same seed and rows"
        assert trial.pruned_at == source.last_step
        assert trial.value_then == source.intermediate_values[trial.pruned_at]
    ran = trials_of(store, auditing)
    assert {t.state.name for t in ran} == {"COMPLETE"} and all(t.last_step == 9 for t in ran)
    values = [trial.value for trial in result.audited]
    assert sorted(values, reverse=True) == values == [t.value for t in sorted(ran, key=lambda t: -(t.value or 0.0))]
    best = max(t.value for t in before if t.value is not None and t.state.name == "COMPLETE")
    assert result.winner_value == best and result.better == sum(value > best for value in values)
    assert result.loss == max(0.0, *(value - best for value in values))
    # More trials add to those that are there; of all of them nothing is left to chance.
    more = audit.prepare(store, study, len(pruned))
    work(store, more, SimulatedEngine(), tmp_path)
    everything = audit.evaluate(store, study)
    assert everything is not None and {t.number for t in everything.audited} == set(pruned)
    assert everything.share.low == everything.share.high == everything.better / len(pruned)
    assert result.better / len(pruned) <= everything.share.high and everything.share.low in result.share
    assert [t.user_attrs for t in trials_of(store, study)] == [t.user_attrs for t in before], "the study is untouched"


@on_sqlite
def test_what_cannot_be_audited_says_so(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=4, pruner="none")
    with pytest.raises(StudyError, match="has no complete trial yet"):
        audit.prepare(store, study, 2)
    work(store, study, SimulatedEngine(), tmp_path)
    with pytest.raises(StudyError, match="has no pruned trial: pruning has missed nothing"):
        audit.prepare(store, study, 2)
    assert audit.evaluate(store, study) is None
    other = make_study(name="other", trials=12, space={"epochs": 9}, pruner="successive_halving")
    work(store, other, SimulatedEngine(), tmp_path)
    auditing = audit.prepare(store, other, 2)
    with pytest.raises(StudyError, match="trains trials of another study again"):
        confirmation.prepare(store, auditing, 1, 2)
    make_study(name="third", trials=12, space={"epochs": 9}, pruner="successive_halving")
