"""The store: opened only where it is, made once, exact in its budgets, and never left with a zombie."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa

from hpo.artifacts import FolderFiles
from hpo.errors import StoreError, StudyError, UsageError
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.loop import Loop
from hpo.runner.session import Session
from hpo.store import queries, studies
from hpo.store.database import schema
from hpo.store.database.conditions import count
from hpo.store.database.connect import Store, exists, open_store
from hpo.store.database.retry import retry_while_unavailable
from hpo.store.database.url import configured, parse, shown
from hpo.store.leases import claims, stopping
from hpo.store.leases.claims import NothingToClaim, Presence, Watch
from hpo.store.leases.outbox import WorkerLost
from hpo.store.repair import mends
from hpo.store.studies import StudyRecord
from hpo.training.simulated import SimulatedEngine
from tests.helpers.command import Process
from tests.helpers.studies import MakeStudy, on_sqlite, small_space, trials_of, work


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("studies.db", r'must be a URL, got "studies.db". Did you mean sqlite:///studies.db\?'),
        ("sqlite://studies.db", r"sqlite takes three slashes, got"),
        ("sqlite:///:memory:", r"must name a file"),
        ("mysql://u:secret@h/d", r'must be sqlite or postgresql, got "mysql"'),
        ("postgresql://u:secret@h:port/d", r"is not a valid URL, got \"postgresql://u:\*\*\*@h:port/d\""),
        ("u:secret@h/d", r"must be a URL, got \"u:\*\*\*@h/d\""),
        ("u:secret@h/x.db", r"must be a URL, got \"u:\*\*\*@h/x.db\". Use"),
        ("postgresql:/u:secret@h/d", r"must be a URL, got \"postgresql:/u:\*\*\*@h/d\""),
        (
            "postgresql://u:sec@secret@h/d",
            r"is not a valid URL, got \"postgresql://u:\*\*\*@h/d\".*quote special signs",
        ),
        ("postgresql://u:secret/d", r"is not a valid URL, got \"postgresql://u:\*\*\*/d\""),
        ("postgresql://h:x/d?sslpassword=secret", r"is not a valid URL, got .*sslpassword=\*\*\*"),
        ("sqlite://u:secret@h/x", r"three slashes, got \"sqlite://u:\*\*\*@h/x\""),
    ],
)
def test_a_malformed_url_is_named_without_its_password(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse(text)
    assert "secret" not in str(caught.value)


def test_the_driver_is_chosen_and_the_password_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("postgresql", "postgres"):
        parsed = parse(f"{scheme}://me:secret@host:5433/db?sslmode=require&password=secret")
        assert parsed.drivername == "postgresql+psycopg"
        assert shown(parsed) == "postgresql://me:***@host:5433/db"
    monkeypatch.setenv("HPO_STORAGE", "sqlite:///a.db")
    assert shown(configured(None)) == "sqlite:///a.db" and shown(configured("sqlite:///b.db")) == "sqlite:///b.db"
    monkeypatch.delenv("HPO_STORAGE")
    assert shown(configured(None)) == "sqlite:///runs/studies.db"


def test_only_creating_creates(store_url: str) -> None:
    with pytest.raises(StoreError, match=r"Make one with `hpo init`|Make them with `hpo init`"):
        open_store(parse(store_url))
    assert not exists(parse(store_url))
    if store_url.startswith("sqlite"):
        assert not Path(store_url.removeprefix("sqlite:///")).exists()
    open_store(parse(store_url), create=True).dispose()
    assert exists(parse(store_url))
    open_store(parse(store_url)).dispose()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("postgresql://u:secret@127.0.0.1:1/db", r"postgresql://u:\*\*\*@127.0.0.1:1/db: cannot be opened: .*refused"),
        ("sqlite:////proc/none/a.db", r"sqlite:////proc/none/a.db: cannot be written: No such file"),
        ("sqlite:////etc/hostname", r"cannot be opened: file is not a database"),
        ("sqlite:////tmp", r"must be a file, got a folder"),
    ],
)
def test_a_store_that_cannot_be_opened_is_named(text: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        open_store(parse(text), create=True)
    assert "secret" not in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_network_filesystem_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.store.database.sqlite_file.filesystem_of", lambda path: "nfs4")
    with pytest.raises(StoreError, match="must lie on a local disk, got nfs4: several machines would damage the file"):
        open_store(parse(f"sqlite:///{tmp_path}/a.db"), create=True)
    assert list(tmp_path.iterdir()) == []


def test_optuna_tables_of_another_revision_are_refused_with_what_to_do(store: Store) -> None:
    with store.write() as connection:
        connection.execute(sa.update(schema.alembic_version).values(version_num="v3.0.0.d"))
    with pytest.raises(StoreError, match=r"must have revision v3.2.0.a, got v3.0.0.d. .*optuna storage upgrade"):
        open_store(store.url)


def test_a_store_of_a_newer_hpo_is_refused(store: Store) -> None:
    with store.write() as connection:
        connection.execute(sa.update(schema.hpo_schema).values(revision=99))
    with pytest.raises(StoreError, match=r"was made by a newer hpo .* Upgrade hpo"):
        open_store(store.url)


def test_a_store_that_optuna_made_takes_our_studies(store_url: str) -> None:
    storage = optuna.storages.RDBStorage(parse(store_url).render_as_string(hide_password=False))
    optuna.create_study(storage=storage, study_name="theirs").optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=2)
    store = open_store(parse(store_url), create=True)
    with pytest.raises(StudyError, match='Study "theirs" was not made by hpo'):
        studies.load_study(store, "theirs")
    with store.read() as connection:
        [view] = queries.studies(connection)
    assert view.finished == 2 and view.budget is None


@pytest.mark.slow
def test_sixteen_processes_make_the_tables_at_once(store_url: str, tmp_path: Path) -> None:
    url = parse(store_url).render_as_string(hide_password=False)
    running = [Process(url, module="tests.helpers.make_tables", folder=tmp_path) for _ in range(16)]
    assert [(process.wait(), process.stderr) for process in running] == [(0, "")] * 16


@pytest.mark.parametrize("name", ["a/b", "a.b", "", "-a", "a b", "..", "x" * 101])
def test_a_study_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r'study: must consist of letters, digits, "_" and "-", got'):
        studies.check_name(name)


def test_an_unknown_study_gets_the_nearest(store: Store, make_study: MakeStudy) -> None:
    make_study("ann_fashion")
    with pytest.raises(StudyError, match=r'No study named "ann_fashon" in .*Did you mean ann_fashion\?') as caught:
        studies.load_study(store, "ann_fashon")
    assert "secret" not in str(caught.value)


def test_a_study_is_loaded_as_it_was_made(store: Store, make_study: MakeStudy) -> None:
    study = make_study("s", trials=7, seed=5)
    assert study.space == small_space() and study.recipe.seed == 5 and study.recipe.budget.trials == 7
    again = studies.create(store, "s", "small", small_space(), study.recipe, "f" * 64)
    assert again is False


def test_resuming_with_something_else_names_the_differences(store: Store, make_study: MakeStudy) -> None:
    study = make_study()
    studies.check_same(study, small_space(), study.recipe)
    other = small_space(epochs=9)
    with pytest.raises(StudyError, match=r"space.epochs: 6 in the study, 9 now.*`hpo run --study s`.*--study NEW_NAME"):
        studies.check_same(study, other, None)
    pruner = study.recipe.model_copy(update={"pruner": study.recipe.pruner.model_copy(update={"name": "median"})})
    with pytest.raises(StudyError, match=r'recipe.pruner.name: "none" in the study, "median" now'):
        studies.check_same(study, None, pruner)
    with pytest.raises(StudyError, match=r"recipe.seed: 0 in the study, 3 now"):
        studies.check_same(study, None, None, {"seed": 3})
    with pytest.raises(StudyError, match=r"must have fingerprint f{16}..., got e{16}...: its scores would not compare"):
        studies.check_data(study, "e" * 64)


def test_claims_never_exceed_the_budget(store: Store, make_study: MakeStudy) -> None:
    study = make_study(trials=3)
    with Session(store, study, {}) as first, Session(store, study, {}) as second:
        two, one = first.claim(2), second.claim(5)
        assert isinstance(two, list) and isinstance(one, list)
        assert (len(two), len(one)) == (2, 1)
        assert isinstance(first.claim(1), NothingToClaim)
        for assignment in two:
            first.trials.complete(assignment.trial_id, 0.5)
        assert isinstance(first.claim(1), NothingToClaim)
        second.trials.fail(one[0].trial_id, "error", "x")
        [third] = second.claim(5)  # type: ignore[misc]
        second.trials.complete(third.trial_id, 0.5)
        assert isinstance(second.claim(1), stopping.StopReason)


def test_leaving_hands_trials_back(store: Store, make_study: MakeStudy) -> None:
    study = make_study(trials=5)
    with Session(store, study, {}) as session:
        session.claim(3)
        assert [t.state.name for t in trials_of(store, study)] == ["RUNNING"] * 3
    assert [t.state.name for t in trials_of(store, study)] == ["WAITING"] * 3
    with store.read() as connection:
        for table in (schema.hpo_workers, schema.hpo_leases):
            assert connection.execute(sa.select(table)).all() == []


def test_trials_that_a_lowered_budget_leaves_waiting_are_the_first_of_a_larger_one(
    store: Store, make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study(trials=6)
    with Session(store, study, {}) as session:
        session.claim(4)
    assert studies.update_budget(store, study, trials=2)
    work(store, study, SimulatedEngine(), tmp_path)
    assert [t.state.name for t in trials_of(store, study)] == ["COMPLETE"] * 2 + ["WAITING"] * 2
    with store.read() as connection:
        over = stopping.over(connection, study.study_id)
    assert over is not None and over.reason == "all 2 trials are finished"
    studies.update_budget(store, study, trials=5)
    work(store, study, SimulatedEngine(), tmp_path)
    assert [t.state.name for t in trials_of(store, study)] == ["COMPLETE"] * 5


def test_the_config_is_stored_before_the_trial_is_trained(store: Store, make_study: MakeStudy) -> None:
    study = make_study()
    with Session(store, study, {}) as session:
        [assignment] = session.claim(1)  # type: ignore[misc]
        [trial] = trials_of(store, study)
        assert trial.user_attrs["config"] == assignment.config.to_dict()
        assert study.space.draw(optuna.trial.FixedTrial(trial.params), assignment.config.seed) == assignment.config


def dead_session(store: Store, study: StudyRecord, claimed: int) -> Session:
    """A session whose worker has died: it beats no more and holds no lock."""
    session = Session(store, study, {})
    session.__enter__()
    session.claim(claimed)
    session.link.outbox.close()
    session.link.presence.lock.release()  # the system does this when a process dies
    return session


def test_a_dead_workers_trial_goes_on_under_a_new_number(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=2)
    dead = dead_session(store, study, 1)
    dead.link.outbox.flush()
    with Session(store, study, {}) as session:
        assert session.link.reap() == [0]
        assert session.link.reap() == []
        Loop(session, SimulatedEngine(), CheckpointRetention(FolderFiles(tmp_path), study.recipe.checkpoints)).run()
    first, second, third = trials_of(store, study)
    assert first.state.name == "FAIL" and first.user_attrs["failure"]["kind"] == "lost"
    assert "trial 1 resumes it" in first.user_attrs["failure"]["message"]
    assert second.user_attrs["continues"] == 0 and second.system_attrs["root"] == 0
    assert second.params == first.params and second.user_attrs["config"] == first.user_attrs["config"]
    assert (second.state.name, third.state.name) == ("COMPLETE", "COMPLETE")
    with store.read() as connection:
        assert stopping.failed_trials(connection, study.study_id) == 0


def test_a_worker_that_was_given_up_learns_it_and_writes_nothing(store: Store, make_study: MakeStudy) -> None:
    study = make_study(trials=2)
    session = Session(store, study, {})
    with pytest.raises(WorkerLost), session:
        [assignment] = session.claim(1)  # type: ignore[misc]
        with store.write() as connection:
            claims.reap(store, connection, study.study_id, session.worker_id)
        session.trials.report(assignment.trial_id, 1, 0.5)
        session.claim(1)
    lost, waiting = trials_of(store, study)
    assert (lost.state.name, waiting.state.name) == ("FAIL", "WAITING")
    assert lost.intermediate_values == waiting.intermediate_values == {}


@pytest.mark.parametrize("backend", ["postgres"])  # on SQLite nothing else writes while a claim is under way
@pytest.mark.parametrize("between", ["count", "progress"])
def test_a_trial_that_ends_while_a_claim_counts_is_counted(
    store: Store, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, between: str
) -> None:
    """Ends of trials do not wait for the study's lock. `between`: which of the two counts it comes after."""
    study = make_study(trials=1)
    with Session(store, study, {}) as first, Session(store, study, {}) as second:
        [only] = first.claim(1)  # type: ignore[misc]
        ended: list[int] = []

        def then_end(answer: Any) -> Any:
            if not ended:
                ended.append(only.trial_id)
                first.trials.report(only.trial_id, 1, 0.5)
                first.trials.complete(only.trial_id, 0.5)
                first.link.flush()
            return answer

        if between == "count":
            monkeypatch.setattr("hpo.store.leases.claims.count_rows", lambda *arguments: then_end(count(*arguments)))
        else:
            progress = stopping.progress
            monkeypatch.setattr(stopping, "progress", lambda *arguments: then_end(progress(*arguments)))
        answer = second.claim(1)
        assert ended and not isinstance(answer, list)
    assert [trial.state.name for trial in trials_of(store, study)] == ["COMPLETE"]


@on_sqlite  # Postgres does not let a trial go whose rows are there
def test_numbers_go_on_after_a_lost_one_was_filled(store: Store, make_study: MakeStudy) -> None:
    """The failed trial that takes a lost number has the newest id, but not the highest number."""
    study = make_study()
    with Session(store, study, {}) as session:
        assert [each.number for each in session.claim(3)] == [0, 1, 2]  # type: ignore[union-attr]
        with store.write() as connection:
            connection.execute(sa.delete(schema.trials).where(schema.trials.c.number == 1))
            mends.add_lost(store, connection, study_id=study.study_id, numbers=[1])
        session.trials.ids.clear()
    with Session(store, study, {}) as session:
        assert sorted(each.number for each in session.claim(3)) == [0, 2, 3]  # type: ignore[union-attr]


def test_each_of_many_workers_looks_less_often(store: Store, make_study: MakeStudy) -> None:
    """Together they look 16 times a second, as each look reads about all of them."""
    study = make_study()
    with Session(store, study, {}) as session:
        session.link.reap()
        assert session.link.look_seconds == 1.0
        others = [
            {"worker_id": f"{i:032x}", "study_id": study.study_id, "beat": 1, "state_json": "{}"} for i in range(64)
        ]
        with store.write() as connection:
            connection.execute(sa.insert(schema.hpo_workers), others)
        session.link.reap()
        assert session.link.look_seconds == 64 / 16


def test_a_trial_that_kills_its_workers_is_given_up(store: Store, make_study: MakeStudy) -> None:
    study = make_study(trials=2)
    for _ in range(claims.MAX_DEATHS):
        dead_session(store, study, 1)
        claims.reap_dead(store, study.study_id, Watch())
    trials = trials_of(store, study)
    assert [t.state.name for t in trials] == ["FAIL"] * claims.MAX_DEATHS
    assert trials[-1].user_attrs["failure"]["message"] == f"its workers died {claims.MAX_DEATHS} times in epoch 1"
    with store.read() as connection:
        assert stopping.failed_trials(connection, study.study_id) == 1


def test_a_claim_whose_answer_was_lost_is_found_again(store: Store, make_study: MakeStudy) -> None:
    study = make_study(trials=5)
    with Session(store, study, {}) as session:
        [lost] = session.claim(1)  # type: ignore[misc]
        session.trials.ids.clear()
        [found] = session.claim(1)  # type: ignore[misc]
        assert found.trial_id == lost.trial_id
        assert len(trials_of(store, study)) == 1


def test_a_beat_that_stands_still_is_a_dead_worker_by_the_watchers_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    watch = Watch(grace=30)
    assert watch.observe({"a": 1, "b": 1}) == {}
    clock[0] += 29
    assert watch.observe({"a": 2, "b": 1}) == {}
    clock[0] += 2
    assert watch.observe({"a": 2, "b": 1}) == {"b": 1}
    watch.reset()
    assert watch.observe({"a": 2, "b": 1}) == {}


def test_a_worker_of_this_machine_is_known_dead_at_once() -> None:
    code = "from hpo.store.leases.claims import Presence; p = Presence('w')"
    code += "; p.__enter__(); print('here', flush=True); input()"
    worker = "f" * 31 + "e"
    child = subprocess.Popen(
        [sys.executable, "-c", code.replace("'w'", repr(worker))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdout.readline() == b"here\n"
    assert not claims.died_here(worker)
    child.kill()
    child.wait()
    assert claims.died_here(worker)
    assert not claims.died_here("0" * 32)  # never heard of: perhaps elsewhere
    with Presence(worker):
        assert not claims.died_here(worker)


@pytest.mark.parametrize(
    ("limit", "reason", "extension"),
    [
        ({"trials": 2}, "all 2 trials are finished", "--trials 4"),
        ({"target": 0.6}, "the target 0.6 is reached", "--stop-at 0.85"),
        ({"patience": 1}, "the best has not improved for 1 trials", "--patience 2"),
        ({"timeout": 5}, "5 s of searching are used up", "--timeout 10s"),
    ],
)
def test_each_limit_ends_a_study_and_names_its_extension(
    store: Store, make_study: MakeStudy, limit: dict[str, Any], reason: str, extension: str
) -> None:
    study = make_study(**({"trials": 50} | limit))
    with Session(store, study, {}) as session:
        for value in (0.7, 0.5):
            assert session.link.stop_reason() is None or "patience" in limit or "target" in limit
            [assignment] = session.claim(1)  # type: ignore[misc]
            session.trials.complete(assignment.trial_id, value)
            session.link.outbox.flush()
            if "target" in limit:
                break
        with store.write() as connection:
            connection.execute(sa.update(schema.hpo_studies).values(active_seconds=6.0))
        over = session.link.stop_reason()
    assert over is not None and over.reason == reason and over.extension.startswith(extension)


def test_a_log_loss_is_aimed_at_nought(store: Store, make_study: MakeStudy) -> None:
    study = make_study(trials=50, target=-0.5, space={"metric": "neg_log_loss"})
    with Session(store, study, {}) as session:
        [assignment] = session.claim(1)  # type: ignore[misc]
        session.trials.complete(assignment.trial_id, -0.4)
        session.link.outbox.flush()
        assert session.link.stop_reason() == stopping.StopReason("the target -0.5 is reached", "--stop-at -0.2")


def test_failures_are_bounded(store: Store, make_study: MakeStudy) -> None:
    study = make_study(trials=50, max_failures=3)
    with Session(store, study, {}) as session:
        for _ in range(3):
            [assignment] = session.claim(1)  # type: ignore[misc]
            session.trials.fail(assignment.trial_id, "error", "no luck")
        assert session.claim(1) == stopping.StopReason("3 trials have failed", "--max-failures 6")


def test_limits_are_kept_and_can_be_changed(store: Store, make_study: MakeStudy) -> None:
    study = make_study(trials=10, timeout=100)
    assert studies.update_budget(store, study, trials=20).model_dump() == {
        "trials": 20,
        "timeout": 100,
        "target": None,
        "patience": None,
        "only_waiting": False,
        "max_failures": 20,
        "revive": 0,
    }
    studies.stop(store, study, "enough")
    with store.read() as connection:
        assert stopping.over(connection, study.study_id) == stopping.StopReason("enough")
    studies.update_budget(store, study)
    with store.read() as connection:
        assert stopping.over(connection, study.study_id) is None


@pytest.mark.slow
def test_the_clock_of_a_study_counts_working_time_only(store: Store, make_study: MakeStudy) -> None:
    study = make_study()

    def seconds() -> float:
        with store.read() as connection:
            return float(stopping.budget_of(connection, study.study_id)[1].active_seconds)

    with Session(store, study, {}), Session(store, study, {}):
        time.sleep(2.6)
    worked = seconds()
    assert 1.0 <= worked <= 4.0
    with store.write() as connection:  # the workers were away for an hour
        connection.execute(sa.update(schema.hpo_studies).values(last_tick=schema.hpo_studies.c.last_tick - 3600))
    with Session(store, study, {}):
        pass
    assert seconds() - worked <= 6.0


def test_a_store_that_is_away_is_waited_for() -> None:
    calls = iter([sa.exc.OperationalError("x", {}, Exception("connection refused"))] * 3)

    def action() -> str:
        for error in calls:
            raise error
        return "back"

    assert retry_while_unavailable(action) == "back"
    with pytest.raises(StoreError, match="the store does not answer: connection refused"):
        calls = iter([sa.exc.OperationalError("x", {}, Exception("connection refused"))] * 99)
        retry_while_unavailable(action, patience=0.2)
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(StoreError):
        retry_while_unavailable(action, stopped)


def test_a_fault_that_waiting_cannot_mend_is_told_at_once(store: Store) -> None:
    def action() -> None:
        with store.read() as connection:
            connection.execute(sa.text("SELECT * FROM nowhere"))

    start = time.monotonic()
    with pytest.raises(StoreError, match="nowhere"):
        retry_while_unavailable(action)
    assert time.monotonic() - start < 5
