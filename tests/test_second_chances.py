"""Second chances: pruned trials are trained on, each once, within a budget that stays exact."""

from pathlib import Path

import optuna
import pytest

from hpo.artifacts import FolderFiles
from hpo.config import TrialConfig
from hpo.errors import StudyError, UsageError
from hpo.optuna_compat import trial_id as id_of
from hpo.recipe import Budget, Pruner, Sampler, StudyRecipe
from hpo.results import audit, charts
from hpo.runner.checkpoint_retention import CheckpointRetention, policy_of
from hpo.runner.loop import Loop
from hpo.runner.session import Session
from hpo.store import admin, queries, studies
from hpo.store.database.connect import Store
from hpo.store.leases import claims
from hpo.store.leases.claims import Watch
from hpo.store.studies import StudyRecord
from hpo.strategy.growth import Growth, curve_of
from hpo.training.engine import Fault
from hpo.training.simulated import FaultOf, SimulatedEngine, accuracy
from tests.helpers.studies import MakeStudy, on_sqlite, small_space, trials_of

HALVING = {"pruner": "successive_halving", "space": {"epochs": 9}}


def run(store: Store, study: StudyRecord, folder: Path, fault: FaultOf = lambda config, epoch: None) -> SimulatedEngine:
    """Work on a study until it is over; return the engine."""
    engine = SimulatedEngine(fault=fault)
    with Session(store, study, {}) as session:
        Loop(session, engine, CheckpointRetention(FolderFiles(folder), policy_of(store, study))).run()
    return engine


def chances(trials: list[optuna.trial.FrozenTrial]) -> dict[int, optuna.trial.FrozenTrial]:
    """Return the second chances that ended well, by the numbers of the pruned trials."""
    given = [t for t in trials if "revives" in t.system_attrs and t.state.is_finished() and t.state.name != "FAIL"]
    assert len({t.system_attrs["revives"] for t in given}) == len(given), "none twice"
    return {t.system_attrs["revives"]: t for t in given}


def test_the_last_trials_go_on_where_the_most_promising_were_pruned(
    store: Store, make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study(trials=30, revive=4, **HALVING)  # type: ignore[arg-type]
    engine = run(store, study, tmp_path)
    trials = trials_of(store, study)
    assert len(trials) == 30 and [t.number for t in chances(trials).values()] == [26, 27, 28, 29]
    before = trials[:26]
    growth = Growth.of(before, epochs=9)
    curves = {t.number: curve_of(t, 9) for t in before if t.state.name == "PRUNED"}
    promises = {number: growth.projected(curve) for number, curve in curves.items() if curve is not None}
    assert next(iter(chances(trials))) == max(promises, key=lambda number: promises[number])
    ids = dict(engine.admitted)
    for number, trial in chances(trials).items():
        source = trials[number]
        config = TrialConfig.from_dict(trial.user_attrs["config"], "trial")
        assert source.state.name == "PRUNED" and trial.state.name == "COMPLETE"
        assert trial.params == source.params and trial.user_attrs["config"] == source.user_attrs["config"]
        assert ids[id_of(trial)] == source.last_step, "from its checkpoint"
        assert trial.intermediate_values == {e: accuracy(config, e) for e in range(1, 10)}, "as if never interrupted"
    with store.read() as connection:
        view = queries.study(connection, study.study_id)
        pruned = queries.pruned_trials(connection, study.study_id)
    assert view.revived == 4 and view.finished == 30
    assert {t.number for t in pruned} == set(promises) - set(chances(trials)), "an audit draws from the others"
    shown = [t.number for t in charts.searched_trials(trials)]
    assert shown == [n for n in range(30) if n not in chances(trials)]
    with Session(store, study, {}) as session:
        assert [t.number for t in session.cache.visible_trials()] == shown, "the sampler sees one of the two"
        judged = [t.number for t in session.cache.judged_trials()]
    assert judged == list(range(26)), "pruning sees those that it judged"
    best = sorted((t for t in trials if t.state.name == "COMPLETE"), key=lambda t: (-t.values[0], t.number))[:3]
    kept = {int(path.stem) for path in (tmp_path / "checkpoints").iterdir()}
    assert {t.system_attrs.get("root", t.number) for t in best} <= kept and len(kept) <= 3 + 4


@pytest.mark.slow
@on_sqlite
def test_chances_for_a_study_that_was_over_start_from_epoch_1(
    store: Store, make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study(trials=20, **HALVING)  # type: ignore[arg-type]
    run(store, study, tmp_path)
    audited = audit.prepare(store, study, 20)
    run(store, audited, tmp_path / "audit")
    with pytest.raises(StudyError, match=r"3 more must fit in the budget, got 20 of 20 trials finished.*--trials 23"):
        studies.update_budget(store, study, revive=3)
    studies.update_budget(store, study, trials=23, revive=3)
    engine = run(store, study, tmp_path)
    assert [epochs for _, epochs in engine.admitted] == [0, 0, 0]
    trials = trials_of(store, study)
    given = chances(trials)
    assert len(trials) == 23 and len(given) == 3
    assert all(list(t.intermediate_values) == list(range(1, 10)) for t in given.values())
    studies.update_budget(store, study, trials=23, revive=3)  # the same command again asks for nothing new
    assert run(store, study, tmp_path).admitted == []
    result = audit.evaluate(store, study)
    assert result is not None and not given.keys() & {t.number for t in result.audited} and result.missing == 0
    # One that is taken back leaves the budget and its trial free again.
    admin.void(store, study.name, 22, "as a test")
    run(store, study, tmp_path)
    assert len(chances(trials_of(store, study))) == 3


def test_no_two_workers_revive_the_same_and_none_is_lost_with_its_worker(
    store: Store, make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study(trials=16, **HALVING)  # type: ignore[arg-type]
    run(store, study, tmp_path)
    studies.update_budget(store, study, trials=22, revive=6)
    dead = Session(store, study, {})
    dead.__enter__()
    first = dead.claim(2)
    with Session(store, study, {}) as other:
        second = other.claim(3)
        assert isinstance(first, list) and isinstance(second, list)
        roots = [each.root for each in first + second]
        assert len(set(roots)) == 5 and all(each.resumed for each in first + second)
    dead.link.outbox.close()
    dead.link.presence.lock.release()  # the system does this when a process dies
    assert len(claims.reap_dead(store, study.study_id, Watch())) == 2
    run(store, study, tmp_path)
    trials = trials_of(store, study)
    finished = [t for t in trials if t.state.name in ("COMPLETE", "PRUNED")]
    assert len(finished) == 22 and len(chances(trials)) == 6 and set(roots) <= chances(trials).keys()
    continued = [t for t in trials if "continues" in t.user_attrs]
    assert len(continued) == 2 and all("revives" in t.system_attrs for t in continued)


@on_sqlite
def test_a_chance_that_fails_leaves_its_place_to_the_next(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=16, **HALVING)  # type: ignore[arg-type]
    run(store, study, tmp_path)
    studies.update_budget(store, study, trials=18, revive=2)
    seen: list[int] = []

    def broken(config: TrialConfig, epoch: int) -> Fault | None:
        seen.append(config.seed)
        return Fault("error", "as planned") if config.seed == seen[0] else None

    run(store, study, tmp_path, broken)
    trials = trials_of(store, study)
    [failed] = [t for t in trials if t.state.name == "FAIL"]
    assert len(trials) == 19 and len(chances(trials)) == 2
    assert failed.system_attrs["revives"] not in chances(trials)
    [(_, number)] = admin.retry(store, study.name, None)
    again = trials_of(store, study)[number]
    assert again.system_attrs["revives"] == again.system_attrs["root"] == failed.system_attrs["revives"]


@on_sqlite
def test_where_nothing_is_pruned_there_are_no_second_chances(
    store: Store, make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study(trials=4)
    with pytest.raises(UsageError, match='needs a recipe that prunes trials, got pruner "none"'):
        studies.update_budget(store, study, revive=2)
    other = make_study("other", trials=5, revive=2, pruner="median")
    run(store, other, tmp_path)  # the first five are not pruned
    assert [t.state.name for t in trials_of(store, other)] == ["COMPLETE"] * 5
    assert chances(trials_of(store, other)) == {}


@on_sqlite
def test_a_grid_that_is_exhausted_goes_on_with_second_chances(store: Store, tmp_path: Path) -> None:
    space = small_space(
        epochs=9, mlp={"depth": 1, "width": {"low": 8, "high": 64, "step": 8}}, optimizer={"name": "sgd", "lr": 0.01}
    )
    recipe = StudyRecipe(
        budget=Budget(trials=20, revive=3),
        pruner=Pruner(name="successive_halving"),
        sampler=Sampler(name="grid"),
    )
    assert studies.create(store, "grid", "small", space, recipe, "f" * 64)
    study = studies.load_study(store, "grid")
    run(store, study, tmp_path)
    trials = trials_of(store, study)
    assert len(trials) == 8 + 3 and len(chances(trials)) == 3


@pytest.mark.slow
@on_sqlite
def test_with_two_objectives_a_chance_is_given_to_what_may_reach_the_front(store: Store, tmp_path: Path) -> None:
    recipe = StudyRecipe(
        objective=("accuracy", "parameters"),
        budget=Budget(trials=30, revive=3),
        pruner=Pruner(name="successive_halving"),
    )
    assert studies.create(store, "two", "small", small_space(epochs=9), recipe, "f" * 64)
    study = studies.load_study(store, "two")
    run(store, study, tmp_path)
    trials = trials_of(store, study)
    given = chances(trials)
    assert len(trials) == 30 and [t.number for t in given.values()] == [27, 28, 29]
    before = [t for t in trials[:27] if t.state.name in ("COMPLETE", "PRUNED")]
    growth = Growth.of(before, epochs=9)

    def promise(number: int) -> float:
        curve = curve_of(trials[number], 9)
        assert curve is not None
        return growth.projected(curve)

    first = trials[next(iter(given))]
    rivals = [t.values[0] for t in before if t.state.name == "COMPLETE" and t.values[1] <= first.values[1]]
    others = [t for t in before if t.state.name == "PRUNED" and t.values[1] == first.values[1]]
    assert promise(first.number) == max(promise(t.number) for t in others)
    assert rivals and all(t.values[1] == trials[number].values[1] for number, t in given.items())
