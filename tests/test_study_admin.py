"""Studies as things: deleted, renamed, copied between stores; trials voided and retried."""

import contextlib
import json
import sqlite3
import time
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa

from hpo.artifacts import FolderFiles
from hpo.config import TrialConfig
from hpo.errors import StoreError, StudyError
from hpo.optuna_compat import trial_id
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.loop import Loop
from hpo.runner.session import Session
from hpo.store import admin, queries, studies
from hpo.store.database import schema, trial_rows
from hpo.store.database.connect import Store, open_store
from hpo.store.database.url import parse
from hpo.store.record import State
from hpo.store.studies import StudyRecord
from hpo.training.engine import Fault
from hpo.training.simulated import SimulatedEngine
from tests.helpers.command import hpo, start
from tests.helpers.studies import MakeStudy, new_database, on_sqlite, trials_of
from tests.helpers.studies import url_of as url


def work(
    store: Store, study: StudyRecord, folder: Path, engine: SimulatedEngine | None = None, steps: int = 10**6
) -> None:
    left = iter(range(steps))
    with Session(store, study, {}) as session:
        keeper = CheckpointRetention(FolderFiles(folder), study.recipe.checkpoints)
        Loop(session, engine or SimulatedEngine(), keeper, lambda: next(left, None) is None).run()


def test_delete_leaves_no_row_behind(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    kept, gone = make_study("kept", trials=3), make_study("gone", trials=4)
    for study in (kept, gone):
        work(store, study, tmp_path / study.name)
    before = optuna.load_study(study_name="kept", storage=url(store)).trials
    assert admin.delete(store, "gone") == gone.uid
    assert optuna.load_study(study_name="kept", storage=url(store)).trials == before
    with store.read() as connection:
        assert studies.names(connection) == ["kept"]
        ids = set(connection.execute(sa.select(schema.trials.c.trial_id)).scalars())
        for table in schema.TRIAL_TABLES:
            assert set(connection.execute(sa.select(table.c.trial_id)).scalars()) <= ids
        for table in (schema.hpo_studies, schema.hpo_leases, *schema.STUDY_TABLES):
            assert set(connection.execute(sa.select(table.c.study_id)).scalars()) <= {kept.study_id}


def test_ids_of_a_deleted_study_are_never_used_again(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    first = make_study("s", trials=3)
    work(store, first, tmp_path)
    old = {trial_id(t) for t in trials_of(store, "s")}
    admin.delete(store, "s")
    second = make_study("s", trials=3)
    work(store, second, tmp_path)
    assert second.study_id != first.study_id and second.uid != first.uid
    assert not old & {trial_id(t) for t in trials_of(store, "s")}


def test_a_worker_of_a_deleted_study_writes_nothing(store: Store, make_study: MakeStudy) -> None:
    study = make_study("s", trials=3)
    admin.delete(store, "s")
    with pytest.raises(StoreError, match=r'study "s" has been deleted'), Session(store, study, {}):
        pass
    with store.read() as connection:
        assert connection.execute(sa.select(schema.hpo_workers)).all() == []


@pytest.mark.slow
def test_a_study_with_workers_is_neither_deleted_nor_renamed(store: Store, make_study: MakeStudy) -> None:
    study = make_study("s", trials=3)
    with Session(store, study, {}):
        at_rest = r"must be at rest, got 1 worker\(s\) at work. Stop them first."
        with pytest.raises(StudyError, match=at_rest):
            admin.delete(store, "s")
        with pytest.raises(StudyError, match=at_rest):
            admin.rename(store, "s", "t")
    admin.rename(store, "s", "t")
    assert studies.load_study(store, "t").uid == study.uid


def test_rename_refuses_a_name_that_is_taken(store: Store, make_study: MakeStudy) -> None:
    make_study("a")
    make_study("b")
    with pytest.raises(StudyError, match=r'there is a study "b" already'):
        admin.rename(store, "a", "b")
    with pytest.raises(StudyError, match='No study named "c"'):
        admin.rename(store, "c", "d")


@pytest.fixture
def other_store(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Store:
    """A store of the other kind: to copy from SQLite to Postgres, and back."""
    if store.is_sqlite:
        return open_store(parse(new_database(request.getfixturevalue("postgres"))), create=True)
    return open_store(parse(f"sqlite:///{tmp_path}/other.db"), create=True)


@pytest.mark.slow
def test_a_copy_in_another_kind_of_store_is_equal_and_can_go_on(
    store: Store, other_store: Store, make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study("s", trials=9, pruner="successive_halving")
    fault = SimulatedEngine(fault=lambda config, epoch: Fault("diverged", "nan") if config.seed % 3 == 0 else None)
    work(store, study, tmp_path, fault)
    optuna.load_study(study_name="s", storage=url(store)).set_user_attr("mine", [1, 2])
    old, new = admin.copy(store, "s", other_store, "t")
    assert old == study.uid != new
    ours, theirs = trials_of(store, "s"), trials_of(other_store, "t")
    for a, b in zip(ours, theirs, strict=True):
        a._trial_id = b._trial_id
    assert ours == theirs
    assert optuna.load_study(study_name="t", storage=url(other_store)).user_attrs["mine"] == [1, 2]
    copied = studies.load_study(other_store, "t")
    assert (copied.space, copied.recipe, copied.fingerprint) == (study.space, study.recipe, study.fingerprint)
    studies.update_budget(other_store, copied, trials=12)
    work(other_store, copied, tmp_path / "t")
    finished = [t for t in trials_of(other_store, "t") if t.state.name in ("COMPLETE", "PRUNED")]
    assert len(finished) == 12 and len(trials_of(store, "s")) == len(ours)


@pytest.mark.slow
def test_a_running_trial_waits_in_the_copy(store: Store, other_store: Store, make_study: MakeStudy) -> None:
    study = make_study("s", trials=3)
    with Session(store, study, {}) as session:
        session.claim(1)
        admin.copy(store, "s", other_store, "s")
    assert [t.state.name for t in trials_of(other_store, "s")] == ["WAITING"]


def test_a_copy_over_another_study_is_refused(store: Store, make_study: MakeStudy) -> None:
    make_study("a")
    make_study("b")
    with pytest.raises(StudyError, match=r'there is a study "b" already'):
        admin.copy(store, "a", store, "b")
    admin.copy(store, "a", store, "c")
    with store.read() as connection:
        assert studies.names(connection) == ["a", "b", "c"]


@pytest.mark.slow
@on_sqlite
def test_a_copy_that_is_killed_can_be_repeated(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    """Its files are copied first; it is killed before its rows are written, while another process holds the lock."""
    study = make_study("s", trials=2)
    work(store, study, tmp_path / "artifacts" / study.uid)
    target = f"sqlite:///{tmp_path}/other/studies.db"
    open_store(parse(target), create=True).dispose()
    command = ("studies", "copy", "s", "--storage", url(store), "--to", target)
    with contextlib.closing(sqlite3.connect(tmp_path / "other" / "studies.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        process = start(*command, folder=tmp_path)
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("other/artifacts/*/checkpoints/*")) and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr
            time.sleep(0.02)
        process.kill()
        process.wait()
    with open_store(parse(target)).read() as connection:
        assert studies.names(connection) == []
    hpo(*command, folder=tmp_path)
    copied = studies.load_study(open_store(parse(target)), "s")
    originals = sorted((tmp_path / "artifacts" / study.uid / "checkpoints").iterdir())
    copies = sorted((tmp_path / "other" / "artifacts" / copied.uid / "checkpoints").iterdir())
    assert originals and [p.read_bytes() for p in copies] == [p.read_bytes() for p in originals]


def test_a_voided_trial_is_out_of_sight_and_another_runs(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study("s", trials=5)
    work(store, study, tmp_path)
    best = optuna.load_study(study_name="s", storage=url(store)).best_trial
    with Session(store, study, {}) as watching:
        assert len(watching.cache.visible_trials()) == 5
        admin.void(store, "s", best.number, "the label file was wrong")
        watching.refresh(at_once=True)
        assert best.number not in [t.number for t in watching.cache.visible_trials()]
    kept = trials_of(store, "s")[best.number]
    assert kept.user_attrs["void"] == {"why": "the label file was wrong", "was": "COMPLETE"}
    assert kept.intermediate_values == best.intermediate_values and kept.params == best.params
    assert optuna.load_study(study_name="s", storage=url(store)).best_trial.number != best.number
    with store.read() as connection:
        view = queries.study(connection, study.study_id)
    assert view.finished == 4 and view.counts[State.FAIL] == 0
    work(store, study, tmp_path)
    assert len(trials_of(store, "s")) == 6


def test_only_finished_trials_can_be_voided(store: Store, make_study: MakeStudy) -> None:
    study = make_study("s", trials=5)
    with pytest.raises(StudyError, match='Study "s" has no trial 7'):
        admin.void(store, "s", 7, "x")
    with Session(store, study, {}) as session:
        session.claim(1)
        with pytest.raises(StudyError, match="trial 0 must be complete or pruned to be voided, got running"):
            admin.void(store, "s", 0, "x")


@pytest.mark.slow
def test_retry_runs_again_only_what_failed(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study("s", trials=20, max_failures=50)
    kinds = {0: "error", 1: "oom"}

    def fault(config: TrialConfig, epoch: int) -> Fault | None:
        kind = kinds.get(config.seed % 4)
        return Fault(kind, "bad luck") if kind else None  # type: ignore[arg-type]

    work(store, study, tmp_path, SimulatedEngine(fault=fault))
    failed = {t.number: t for t in trials_of(store, "s") if t.state.name == "FAIL"}
    oom = [n for n, t in failed.items() if t.user_attrs["failure"]["kind"] == "oom"]
    assert oom and len(oom) < len(failed)
    retried = admin.retry(store, "s", "oom")
    assert [old for old, _ in retried] == oom
    assert admin.retry(store, "s", "oom") == []
    rest = admin.retry(store, "s", None)
    assert {old for old, _ in rest} == set(failed) - set(oom)
    studies.update_budget(store, study, trials=20 + len(failed))
    work(store, study, tmp_path)
    done = trials_of(store, "s")
    for old, new in retried + rest:
        assert done[new].params == done[old].params
        assert done[new].state.name == "COMPLETE" and done[new].user_attrs["retries"] == old
        assert done[new].user_attrs["config"] == done[old].user_attrs["config"]
    with store.read() as connection:
        assert queries.study(connection, study.study_id).counts[State.FAIL] == 0


def test_the_json_of_a_study_is_all_json(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    from hpo.cli.render.as_json import study_json, trial_json

    study = make_study("s", trials=3)
    work(store, study, tmp_path)
    with store.read() as connection:
        text = json.dumps(study_json(queries.study(connection, study.study_id)))
        best = queries.best_trials(connection, study.study_id, 1)[0]
        [same] = trial_rows.load_some(connection, [best.trial_id])
    assert json.loads(text)["counts"]["COMPLETE"] == 3
    assert json.loads(json.dumps(trial_json(best)))["params"] == same.params
