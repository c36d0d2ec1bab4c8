"""A store and two versions of hpo: the code of 0.1.0 itself runs beside the present one."""

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from hpo.errors import StoreError
from hpo.runner.session import Session
from hpo.store import queries, studies
from hpo.store.database import schema
from hpo.store.database.connect import Store, open_store
from hpo.store.database.url import parse
from hpo.store.leases import claims
from hpo.store.leases.outbox import WorkerLost
from hpo.store.record import State
from hpo.store.studies import StudyRecord
from tests.helpers.studies import MakeStudy, trials_of

FIXTURE = Path(__file__).parent / "fixtures" / "v0.1.0"
REFUSED = r"hpo: sqlite:///studies\.db: was made by a newer hpo \(tables 2, known 1\)\. Upgrade hpo\.\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the store of 0.1.0, and its code."""
    shutil.copy(FIXTURE / "studies.db", tmp_path / "studies.db")
    with zipfile.ZipFile(FIXTURE / "hpo.zip") as code:
        code.extractall(tmp_path / "code")
    monkeypatch.setenv("HPO_ARTIFACTS", str(tmp_path / "artifacts"))
    return tmp_path


@pytest.fixture
def old_store(root: Path) -> Iterator[Store]:
    opened = open_store(parse(f"sqlite:///{root}/studies.db"))
    yield opened
    opened.dispose()


def start_old(root: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start `hpo` of 0.1.0."""
    environment = os.environ | {"PYTHONPATH": str(root / "code"), "HPO_STORAGE": "sqlite:///studies.db"}
    command = [sys.executable, "-P", "-m", "hpo", *arguments]
    return subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end of a process; return its exit code and what it wrote to stderr."""
    try:
        _, said = process.communicate(timeout=240)
    finally:
        process.kill()
    return process.returncode, said


def revision(store: Store) -> int:
    with store.read() as connection:
        return int(connection.execute(sa.select(schema.hpo_schema.c.revision)).scalar_one())


def wait_for_work(store: Store, study: StudyRecord) -> None:
    """Wait until a worker has a trial."""
    deadline = time.monotonic() + 240
    while not any(trial.state.name == State.RUNNING for trial in trials_of(store, study)):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
def test_the_older_one_refuses_in_one_line_what_the_present_one_has_changed(root: Path, old_store: Store) -> None:
    with old_store.read() as connection:
        assert len(list(queries.studies(connection))) == 2
    assert ended(start_old(root, "studies", "list")) == (0, "") and revision(old_store) == 1, "reading changes nothing"
    studies.update_budget(old_store, studies.load_study(old_store, "digits"), trials=9)
    assert revision(old_store) == schema.HPO_REVISION
    for command in (("studies", "list"), ("run", "--study", "digits", "--trials", "9")):
        code, said = ended(start_old(root, *command))
        assert code == 1 and re.fullmatch(REFUSED, said), said


@pytest.mark.slow
def test_nothing_is_changed_under_a_worker_of_an_older_one(root: Path, old_store: Store) -> None:
    """While its beat changes, the upgrade is refused; if it sleeps, it wakes to write nothing more."""
    study = studies.load_study(old_store, "digits")
    with contextlib.closing(sqlite3.connect(root / "studies.db")) as raw:
        raw.execute("UPDATE hpo_studies SET budget_json = '{\"trials\": 400}'")
        raw.commit()
    worker = start_old(root, "worker", "--study", "digits", "--device", "cpu")
    try:
        wait_for_work(old_store, study)
        at_work = r"must be upgraded by this hpo, but 1 worker\(s\) of an earlier one are at work. Stop them first"
        with pytest.raises(StoreError, match=at_work):
            studies.update_budget(old_store, study, trials=12)
        assert revision(old_store) == 1 and worker.poll() is None
        with contextlib.closing(sqlite3.connect(root / "studies.db", timeout=60)) as raw:
            raw.execute("BEGIN IMMEDIATE")  # it sleeps outside its transactions, which would hold the store's lock
            worker.send_signal(signal.SIGSTOP)
            time.sleep(0.2)
            raw.rollback()
        before = trials_of(old_store, study)
        studies.update_budget(old_store, study, trials=len(before) + 2)
        worker.send_signal(signal.SIGCONT)
        code, said = ended(worker)
    finally:
        worker.kill()
    assert code == 1 and said.splitlines()[-1].startswith('hpo: budget: unknown key "revive"'), said
    assert repr(trials_of(old_store, study)) == repr(before)


def test_a_worker_does_not_register_in_a_store_that_a_newer_one_has_upgraded(
    store: Store, make_study: MakeStudy
) -> None:
    """A worker that was declared dead registers again, in a store that it opened long before."""
    study = make_study()
    with store.write() as connection:
        connection.execute(sa.update(schema.hpo_schema).values(revision=99))
    with pytest.raises(StoreError, match=r"was made by a newer hpo \(tables 99, known 2\). Upgrade hpo."):
        Session(store, study, {"device": "cpu"}).__enter__()
    with store.read() as connection:
        assert connection.execute(sa.select(schema.hpo_workers)).all() == []


def test_an_upgrade_takes_trials_from_sleeping_workers(store: Store, make_study: MakeStudy) -> None:
    """On both databases: their registration is gone, their trials are taken over."""
    study = make_study(trials=3)
    with Session(store, study, {"device": "cpu"}) as session:
        claimed = session.claim(1)
        assert isinstance(claimed, list)
        session.link.outbox.close()  # its beat stands still
        with store.write() as connection:
            connection.execute(sa.update(schema.hpo_schema).values(revision=1))
            connection.execute(sa.update(schema.hpo_studies).values(budget_json='{"trials": 3}'))
        again = open_store(store.url)
        with again.write() as connection:
            [(lease,)] = connection.execute(sa.select(schema.hpo_leases.c.worker_id)).all()
            [(worker,)] = connection.execute(sa.select(schema.hpo_workers.c.worker_id)).all()
            budget = connection.execute(sa.select(schema.hpo_studies.c.budget_json)).scalar_one()
        again.dispose()
        assert lease == worker != session.worker_id and revision(store) == schema.HPO_REVISION
        assert json.loads(budget) == {"trials": 3, "revive": 0}
        with pytest.raises(WorkerLost):
            session.link.flush()
        with store.write() as connection:
            assert claims.reap(store, connection, study.study_id, worker) == [claimed[0].number]
