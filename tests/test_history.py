"""What is kept of a large study: enough to learn from, of one size, and the same for all workers."""

import random
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from hpo.artifacts import FolderFiles
from hpo.optuna_compat import trial_id
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.loop import Loop
from hpo.runner.session import Session
from hpo.store.database import trial_rows
from hpo.store.database.connect import Store
from hpo.store.record import TrialAttributes
from hpo.strategy import history
from hpo.training.simulated import SimulatedEngine
from tests.helpers.studies import MakeStudy, work

SMALL = {"WHOLE": 16, "BEST": 4, "NEWEST": 4}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies are large from 17 trials on."""
    for name, value in SMALL.items():
        monkeypatch.setattr(history, name, value)
    monkeypatch.setattr(trial_rows, "FEW_TRIALS", 4)  # else those few would be read in another way than many


def trial(number: int, value: float | None, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    made = optuna.trial.create_trial(state=state, value=value)
    made.number = number
    return made


def numbers(trials: list[FrozenTrial]) -> list[int]:
    return [trial.number for trial in trials]


def test_a_study_is_kept_whole_up_to_a_size() -> None:
    trials = [trial(i, 0.5) for i in range(history.WHOLE)]
    assert history.kept(trials) == trials
    assert len(history.kept([*trials, trial(history.WHOLE, 0.5)])) < history.WHOLE


@pytest.mark.parametrize("count", [2001, 3999, 4000, 20_000])
def test_what_is_kept_has_one_size(count: int) -> None:
    chance = random.Random(count)
    kept = history.kept([trial(i, chance.random()) for i in range(count)])
    assert history.WHOLE / 2 <= len(kept) <= history.WHOLE + history.BEST + history.NEWEST


@pytest.mark.usefixtures("small")
def test_the_best_the_newest_and_those_under_way_are_kept_beside_an_evenly_spaced_sample() -> None:
    trials = [trial(i, i % 37 / 37) for i in range(70)]
    trials[5] = trial(5, None, TrialState.RUNNING)
    trials[7].system_attrs = {TrialAttributes.revives.key: 3}
    sampled = {number for number in range(70) if number % 8 == 0}
    best = sorted(range(70), key=lambda i: (-(i % 37), i))[:4]
    assert numbers(history.kept(trials)) == sorted(sampled | {5, 66, 67, 68, 69} | set(best) | {7})


@pytest.mark.usefixtures("small")
def test_what_is_kept_later_is_among_what_is_kept_now_or_newer() -> None:
    chance = random.Random(0)
    trials = [trial(i, chance.random()) for i in range(300)]
    step_by_step: list[FrozenTrial] = []
    for number, new in enumerate(trials, start=1):
        step_by_step = history.kept([*step_by_step, new])
        assert step_by_step == history.kept(trials[:number])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("pruner", ["none", "successive_halving"])
@pytest.mark.slow
def test_a_worker_that_joins_late_knows_the_same(
    store: Store, make_study: MakeStudy, tmp_path: Path, pruner: str
) -> None:
    study = make_study(trials=90, pruner=pruner)
    with Session(store, study, {}) as early:
        Loop(early, SimulatedEngine(), CheckpointRetention(FolderFiles(tmp_path), study.recipe.checkpoints)).run()
        early.refresh(at_once=True)
        with Session(store, study, {}) as late:
            known = {trial_id(t): t for t in early.cache.all_trials()}
            assert {trial_id(t) for t in late.cache.all_trials()} == known.keys()
            assert len(known) <= sum(SMALL.values())
            values = [t.values for t in late.cache.visible_trials()]
            assert values == [t.values for t in early.cache.visible_trials()]
            assert max(v[0] for v in values) == early.ranking.best_value()


@pytest.mark.usefixtures("small")
@pytest.mark.slow
def test_a_large_study_has_exactly_its_trials(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=80, pruner="successive_halving")
    over = work(store, study, SimulatedEngine(), tmp_path)
    assert over is not None and "80 trials are finished" in over.reason
