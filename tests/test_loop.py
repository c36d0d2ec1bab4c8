"""The runner's loop, with a fake engine and both kinds of store."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from hpo.artifacts import FolderFiles, study_files
from hpo.config import TrialConfig
from hpo.errors import UsageError
from hpo.recipe import Budget, Pruner, Sampler, StudyRecipe
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.loop import Loop
from hpo.runner.session import Session
from hpo.store import queries, studies
from hpo.store.database.connect import Store
from hpo.strategy.samplers import derived_seed
from hpo.training import checkpoints
from hpo.training.engine import EpochResult, Fault
from hpo.training.simulated import SimulatedEngine, accuracy
from tests.helpers.cluster import moto_bucket
from tests.helpers.oracles import ORACLES
from tests.helpers.studies import MakeStudy, on_sqlite, small_space, trials_of, work


@pytest.mark.parametrize("capacity", [1, 5])
def test_a_study_ends_with_exactly_its_trials(
    store: Store, make_study: MakeStudy, tmp_path: Path, capacity: int
) -> None:
    study = make_study(trials=13)
    over = work(store, study, SimulatedEngine(capacity), tmp_path)
    assert over is not None and over.reason == "all 13 trials are finished"
    trials = trials_of(store, study)
    assert [t.state.name for t in trials] == ["COMPLETE"] * 13
    assert [t.number for t in trials] == list(range(13))


def test_optuna_reads_what_was_trained(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=4)
    work(store, study, SimulatedEngine(), tmp_path)
    for trial in trials_of(store, study):
        config = TrialConfig.from_dict(trial.user_attrs["config"], "trial")
        assert study.space.draw(optuna.trial.FixedTrial(trial.params), config.seed) == config
        assert study.space.draw(trial, config.seed) == config
        assert trial.intermediate_values == {e: accuracy(config, e) for e in range(1, 7)}
        assert trial.value == accuracy(config, 6)
        assert trial.user_attrs["epochs"] == 6
        assert trial.user_attrs["parameters"] == 1000
        assert trial.user_attrs["curves"]["validation_accuracy"] == [round(accuracy(config, e), 6) for e in range(1, 7)]


@on_sqlite
def test_the_spaces_metric_is_what_is_searched(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=4, space={"metric": "neg_log_loss"})

    def one_diverges(config: TrialConfig, epoch: int) -> Fault | None:
        return Fault("diverged", "so it goes") if config.seed == first and epoch == 2 else None

    first = derived_seed(study.recipe.seed, "train", 0)
    work(store, study, SimulatedEngine(fault=one_diverges), tmp_path)
    diverged, *others = trials_of(store, study)
    assert diverged.value == -100.0 and diverged.state is TrialState.PRUNED
    for trial in others:
        config = TrialConfig.from_dict(trial.user_attrs["config"], "trial")
        assert config.metric == "neg_log_loss"
        assert trial.value == pytest.approx(accuracy(config, 6) - 1)
    with store.read() as connection:
        assert queries.study(connection, study.study_id).metric_label == "validation negative log loss"


def test_running_again_goes_on_to_the_same_total(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=8)
    steps = iter(range(1000))
    assert work(store, study, SimulatedEngine(), tmp_path, lambda: next(steps) > 20) is None
    states = [t.state.name for t in trials_of(store, study)]
    assert "RUNNING" not in states and states.count("COMPLETE") < 8
    assert work(store, study, SimulatedEngine(), tmp_path) is not None
    assert [t.state.name for t in trials_of(store, study)] == ["COMPLETE"] * 8


def test_a_trial_that_was_handed_back_goes_on_from_its_checkpoint(
    store: Store, make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study(trials=1)
    steps = iter(range(1000))
    work(store, study, SimulatedEngine(), tmp_path, lambda: next(steps) > 3)
    [trial] = trials_of(store, study)
    done = len(trial.intermediate_values)
    assert trial.state.name == "WAITING" and done > 0
    engine = SimulatedEngine()
    work(store, study, engine, tmp_path)
    [trial] = trials_of(store, study)
    assert [epochs for _, epochs in engine.admitted] == [done]
    assert trial.state.name == "COMPLETE" and list(trial.intermediate_values) == [1, 2, 3, 4, 5, 6]


def test_a_trial_that_was_killed_after_its_last_epoch_is_not_trained_further(
    store: Store, make_study: MakeStudy, tmp_path: Path
) -> None:
    """Its final checkpoint was written, the news of its end was not."""
    study = make_study(trials=1)
    engine = SimulatedEngine()
    with Session(store, study, {"device": "fake"}) as session:
        [assignment] = session.claim(1)  # type: ignore[misc]
        key = assignment.trial_id
        engine.admit(key, assignment.config)
        for epoch in range(1, 7):
            result = engine.step()[key]
            assert isinstance(result, EpochResult)
            session.trials.report(key, epoch, result.validation_accuracy)
        CheckpointRetention(FolderFiles(tmp_path), study.recipe.checkpoints).save(
            assignment.root, lambda: engine.snapshot(key)
        )
        session.release(key)
    again = SimulatedEngine()
    assert work(store, study, again, tmp_path) is not None
    [trial] = trials_of(store, study)
    assert again.admitted == [(key, 6)] and trial.state.name == "COMPLETE"
    assert list(trial.intermediate_values) == [1, 2, 3, 4, 5, 6] and trial.value == trial.intermediate_values[6]


@pytest.mark.parametrize(
    "sampler", ["tpe, local", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tpe", "gp", "qmc", "random"))]
)
@on_sqlite
def test_every_sampler_draws_the_same_whoever_draws(store: Store, tmp_path: Path, sampler: str) -> None:
    """A study in one go, and one whose worker is replaced after each few trials: the same configs."""
    drawn = []
    trials = 9 if sampler == "gp" else 14  # the first 5 are random
    name_of_sampler, share = sampler.removesuffix(", local"), 0.5 if "local" in sampler else 0.0
    for name, pauses in (("one", 1000), ("many", 7)):
        recipe = StudyRecipe(
            budget=Budget(trials=trials),
            pruner=Pruner(name="none"),
            sampler=Sampler.model_validate({"name": name_of_sampler, "startup_trials": 5, "local_share": share}),
        )
        assert studies.create(store, name, "small", small_space(), recipe, "f" * 64)
        study = studies.load_study(store, name)
        over = None
        while over is None:
            steps = iter(range(1000))
            over = work(store, study, SimulatedEngine(), tmp_path / name, lambda: next(steps) > pauses)  # noqa: B023
        drawn.append([t.user_attrs["config"] for t in trials_of(store, study)])
    assert drawn[0] == drawn[1] and len(drawn[0]) == trials


@pytest.mark.parametrize(
    "pruner", [pytest.param(name, marks=() if name == "median" else pytest.mark.slow) for name in ORACLES]
)
@on_sqlite
def test_pruning_is_what_optuna_would_have_done(
    store: Store, make_study: MakeStudy, tmp_path: Path, pruner: str
) -> None:
    """Optuna's own study, in its in-memory storage, told the same draws and curves, prunes the same trials."""
    study = make_study(trials=40, pruner=pruner)
    work(store, study, SimulatedEngine(), tmp_path)
    ours = trials_of(store, study)
    assert 5 < sum(t.state.name == "PRUNED" for t in ours) < 40
    # Under the same name, for Hyperband's brackets follow from it.
    oracle = optuna.create_study(study_name=study.name, direction="maximize", pruner=ORACLES[pruner])
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


def test_faults_are_recorded_and_the_study_goes_on(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    def fault(config: TrialConfig, epoch: int) -> Fault | None:
        kind = {0: "diverged", 1: "oom", 2: "error"}.get(config.seed % 10)
        return Fault(kind, "as planned") if kind and epoch == 2 else None  # type: ignore[arg-type]

    study = make_study(trials=30)
    work(store, study, SimulatedEngine(fault=fault), tmp_path)
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


@pytest.mark.slow
@on_sqlite
def test_the_same_seed_draws_the_same_study(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    first, second = make_study("a", trials=25, seed=3), make_study("b", trials=25, seed=3)
    other = make_study("c", trials=25, seed=4)
    for study in (first, second, other):
        work(store, study, SimulatedEngine(), tmp_path / study.name)
    drawn = [[t.params for t in trials_of(store, s)] for s in (first, second, other)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.slow
@on_sqlite
def test_out_of_memory_is_tried_once_more_in_parts(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=1)

    def small_memory(config: TrialConfig, epoch: int) -> Fault | None:
        return Fault("oom", "no memory left") if epoch == 3 and config.accumulation == 1 else None

    engine = SimulatedEngine(fault=small_memory)
    work(store, study, engine, tmp_path)
    [trial] = trials_of(store, study)
    assert trial.state.name == "COMPLETE" and list(trial.intermediate_values) == [1, 2, 3, 4, 5, 6]
    assert trial.user_attrs["config"]["accumulation"] == 4
    assert trial.user_attrs["config"]["batch_size"] == 32
    assert trial.user_attrs["retried_after"] == "no memory left"
    assert len(engine.admitted) == 2


@on_sqlite
def test_out_of_memory_twice_is_a_failure(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=3, max_failures=1)
    over = work(store, study, SimulatedEngine(fault=lambda config, epoch: Fault("oom", "no memory left")), tmp_path)
    [trial] = trials_of(store, study)
    assert trial.state.name == "FAIL" and trial.user_attrs["failure"] == {"kind": "oom", "message": "no memory left"}
    assert over is not None and over.reason == "1 trial has failed"


@on_sqlite
def test_first_trials_that_all_fail_alike_stop_the_study(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=100, max_failures=100)

    def broken(config: TrialConfig, epoch: int) -> Fault:
        return Fault("error", f"mat1 and mat2 cannot be multiplied ({config.seed}x784 and 100x10)")

    over = work(store, study, SimulatedEngine(fault=broken), tmp_path)
    assert over is not None
    assert over.reason.startswith("the first trials all failed alike (error: mat1 and mat2 cannot be multiplied")
    assert len(trials_of(store, study)) == 3


@on_sqlite
def test_failures_among_successes_do_not_stop_the_study(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=10, max_failures=100)
    faults = SimulatedEngine(
        fault=lambda config, epoch: Fault("error", "odd") if config.seed % 2 and epoch == 2 else None
    )
    over = work(store, study, faults, tmp_path)
    assert over is not None and over.reason == "all 10 trials are finished"


def checkpoints_in(folder: Path) -> set[int]:
    return {int(path.stem) for path in (folder / "checkpoints").glob("*.safetensors")}


@on_sqlite
def test_the_best_trials_keep_their_final_state(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=12)
    work(store, study, SimulatedEngine(), tmp_path)
    trials = sorted(trials_of(store, study), key=lambda t: -t.values[0])
    assert checkpoints_in(tmp_path) == {t.number for t in trials[:3]}
    best = checkpoints.from_bytes((tmp_path / f"checkpoints/{trials[0].number}.safetensors").read_bytes(), "best")
    assert [r.validation_accuracy for r in best.history] == list(trials[0].intermediate_values.values())


@on_sqlite
def test_checkpoints_stay_below_their_limit(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=6)
    with Session(store, study, {}) as session:
        policy = study.recipe.checkpoints.model_copy(update={"max_megabytes": 0.004})
        Loop(session, SimulatedEngine(), CheckpointRetention(FolderFiles(tmp_path), policy)).run()
    kept = sum(path.stat().st_size for path in (tmp_path / "checkpoints").iterdir())
    assert 0 < kept <= 4000
    best = max(trials_of(store, study), key=lambda t: t.values[0])
    assert checkpoints_in(tmp_path) == {best.number}


@on_sqlite
def test_a_disk_that_takes_no_checkpoint_costs_a_warning(
    store: Store, make_study: MakeStudy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = make_study(trials=3)
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    work(store, study, SimulatedEngine(), tmp_path)
    assert [t.state.name for t in trials_of(store, study)] == ["COMPLETE"] * 3
    assert "no checkpoints can be written, a killed trial would start from epoch 1" in caplog.text


@on_sqlite
def test_a_damaged_checkpoint_has_the_trial_start_anew(
    store: Store, make_study: MakeStudy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = make_study(trials=1)
    steps = iter(range(1000))
    work(store, study, SimulatedEngine(), tmp_path, lambda: next(steps) > 3)
    [path] = (tmp_path / "checkpoints").iterdir()
    path.write_bytes(path.read_bytes()[:50])
    engine = SimulatedEngine()
    work(store, study, engine, tmp_path)
    assert [epochs for _, epochs in engine.admitted] == [0]
    assert "trial 0 starts from epoch 1: checkpoints/0.safetensors: must be a checkpoint written by hpo" in caplog.text
    assert [t.state.name for t in trials_of(store, study)] == ["COMPLETE"]


@pytest.mark.slow
@on_sqlite
def test_checkpoints_go_to_s3(store: Store, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    with moto_bucket("hpo-test") as settings:
        for name, value in {**settings, "HPO_ARTIFACTS": "s3://hpo-test/some/prefix"}.items():
            monkeypatch.setenv(name, value)
        study = make_study(trials=5)
        files = study_files(store.url, study.uid)
        with Session(store, study, {}) as session:
            Loop(session, SimulatedEngine(), CheckpointRetention(files, study.recipe.checkpoints)).run()
        listed = (
            boto3.client("s3").list_objects_v2(Bucket="hpo-test", Prefix=f"some/prefix/{study.uid}").get("Contents", [])
        )
        best = sorted(trials_of(store, study), key=lambda t: -t.values[0])[:3]
        expected = {f"some/prefix/{study.uid}/checkpoints/{t.number}.safetensors" for t in best}
        assert {entry["Key"] for entry in listed} == expected
        content = files.read(f"checkpoints/{best[0].number}.safetensors")
        assert content is not None and checkpoints.from_bytes(content, "s3").epoch == 6
        assert files.read("checkpoints/none.safetensors") is None


@pytest.mark.parametrize("root", ["s3://", "gs://bucket/x"])
@on_sqlite
def test_an_artifact_root_that_is_none_is_named(
    store: Store, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    monkeypatch.setenv("HPO_ARTIFACTS", root)
    with pytest.raises(UsageError, match=r"HPO_ARTIFACTS: must "):
        study_files(store.url, make_study().uid)
