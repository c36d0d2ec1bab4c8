"""The runner's loop, with a fake engine and both kinds of store."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from hpo.config import TrialConfig
from hpo.runner.loop import Loop
from hpo.store.connect import Store
from hpo.store.limits import Over
from hpo.store.session import Session
from hpo.store.study import Study
from hpo.training.contract import Fault
from tests.fakes import FakeEngine, accuracy

MakeStudy = Callable[..., Study]


def work(store: Store, study: Study, engine: FakeEngine, folder: Path, stopping=lambda: False) -> Over | None:
    with Session(store, study, {"device": "fake"}) as session:
        return Loop(session, engine, folder, stopping).run()


def trials_of(store: Store, study: Study) -> list[optuna.trial.FrozenTrial]:
    """What Optuna itself reads."""
    url = store.url.render_as_string(hide_password=False)
    return optuna.load_study(study_name=study.name, storage=url).trials


@pytest.mark.parametrize("capacity", [1, 5])
def test_a_study_ends_with_exactly_its_trials(store: Store, make_study: MakeStudy, tmp_path: Path, capacity: int):
    study = make_study(trials=13)
    over = work(store, study, FakeEngine(capacity), tmp_path)
    assert over is not None and over.reason == "all 13 trials are finished"
    trials = trials_of(store, study)
    assert [t.state.name for t in trials] == ["COMPLETE"] * 13
    assert [t.number for t in trials] == list(range(13))


def test_optuna_reads_what_was_trained(store: Store, make_study: MakeStudy, tmp_path: Path):
    study = make_study(trials=4)
    work(store, study, FakeEngine(), tmp_path)
    for trial in trials_of(store, study):
        config = TrialConfig.from_dict(trial.user_attrs["config"], "trial")
        assert study.space.draw(optuna.trial.FixedTrial(trial.params), config.seed) == config
        assert study.space.draw(trial, config.seed) == config
        assert trial.intermediate_values == {e: accuracy(config, e) for e in range(1, 7)}
        assert trial.value == accuracy(config, 6)
        assert trial.user_attrs["epochs"] == 6
        assert trial.user_attrs["parameters"] == 1000
        assert trial.user_attrs["curves"]["validation_accuracy"] == [round(accuracy(config, e), 6) for e in range(1, 7)]


def test_running_again_goes_on_to_the_same_total(store: Store, make_study: MakeStudy, tmp_path: Path):
    study = make_study(trials=8)
    steps = iter(range(1000))
    assert work(store, study, FakeEngine(), tmp_path, lambda: next(steps) > 20) is None
    states = [t.state.name for t in trials_of(store, study)]
    assert "RUNNING" not in states and states.count("COMPLETE") < 8
    assert work(store, study, FakeEngine(), tmp_path) is not None
    assert [t.state.name for t in trials_of(store, study)] == ["COMPLETE"] * 8


def test_a_trial_that_was_handed_back_goes_on_from_its_checkpoint(store: Store, make_study: MakeStudy, tmp_path: Path):
    study = make_study(trials=1)
    steps = iter(range(1000))
    work(store, study, FakeEngine(), tmp_path, lambda: next(steps) > 3)
    [trial] = trials_of(store, study)
    done = len(trial.intermediate_values)
    assert trial.state.name == "WAITING" and done > 0
    engine = FakeEngine()
    work(store, study, engine, tmp_path)
    [trial] = trials_of(store, study)
    assert [epochs for _, epochs in engine.admitted] == [done]
    assert trial.state.name == "COMPLETE" and list(trial.intermediate_values) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("pruner", ["successive_halving", "median"])
def test_pruning_is_what_optuna_would_have_done(store: Store, make_study: MakeStudy, tmp_path: Path, pruner: str):
    """Optuna's own study, in its in-memory storage, told the same draws and curves, prunes the same trials."""
    study = make_study(trials=40, pruner=pruner)
    work(store, study, FakeEngine(), tmp_path)
    ours = trials_of(store, study)
    assert 5 < sum(t.state.name == "PRUNED" for t in ours) < 40
    oracle = optuna.create_study(
        direction="maximize",
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=4)
        if pruner == "successive_halving"
        else optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    )
    for trial in ours:
        config = TrialConfig.from_dict(trial.user_attrs["config"], "trial")
        asked = oracle.ask()
        pruned = False
        for epoch in range(1, 7):
            asked.report(accuracy(config, epoch), epoch)
            pruned = epoch < 6 and asked.should_prune()
            if pruned:
                break
        assert pruned == (trial.state.name == "PRUNED")
        assert oracle.trials[-1].intermediate_values == trial.intermediate_values
        oracle.tell(asked, None if pruned else accuracy(config, 6), optuna.trial.TrialState.PRUNED if pruned else None)


def test_faults_are_recorded_and_the_study_goes_on(store: Store, make_study: MakeStudy, tmp_path: Path):
    def fault(config: TrialConfig, epoch: int) -> Fault | None:
        kind = {0: "diverged", 1: "oom", 2: "error"}.get(config.seed % 10)
        return Fault(kind, "as planned") if kind and epoch == 2 else None  # type: ignore[arg-type]

    study = make_study(trials=30)
    work(store, study, FakeEngine(fault=fault), tmp_path)
    trials = trials_of(store, study)
    finished = [t for t in trials if t.state.name in ("COMPLETE", "PRUNED")]
    assert len(finished) == 30
    seeds = {t.number: TrialConfig.from_dict(t.user_attrs["config"], "t").seed % 10 for t in trials}
    for trial in trials:
        kind = {0: "diverged", 1: "oom", 2: "error"}.get(seeds[trial.number])
        assert trial.user_attrs.get("failure", {}).get("kind") == kind
        if kind == "diverged":
            assert trial.state.name == "PRUNED" and trial.value == 0.0
        elif kind:
            assert trial.state.name == "FAIL"
    assert {seeds[t.number] for t in trials} >= {0, 1, 2}


def test_the_same_seed_draws_the_same_study(store: Store, make_study: MakeStudy, tmp_path: Path):
    first, second = make_study("a", trials=25, seed=3), make_study("b", trials=25, seed=3)
    other = make_study("c", trials=25, seed=4)
    for study in (first, second, other):
        work(store, study, FakeEngine(), tmp_path / study.name)
    drawn = [[t.params for t in trials_of(store, s)] for s in (first, second, other)]
    assert drawn[0] == drawn[1] != drawn[2]
