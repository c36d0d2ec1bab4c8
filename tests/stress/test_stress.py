"""Studies that nothing can hurt: the faults injected, in processes of their own.

In `make test` each runs in a short form; `HPO_STRESS=full pytest tests/stress -s` runs the whole, and prints
the figures that the README quotes (and writes them to HPO_STRESS_OUTPUT, if that is set).
"""

import json
import os
import random
import signal
import stat
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import sqlalchemy as sa

from hpo.config import TrialConfig
from hpo.recipe import Budget, Checkpoints, Pruner, StudyRecipe
from hpo.store import studies
from hpo.store.database import schema
from hpo.store.database.connect import Store, open_store
from hpo.store.database.url import parse
from hpo.store.leases import claims, stopping
from hpo.store.studies import StudyRecord
from hpo.training.simulated import accuracy
from tests.helpers.cluster import until
from tests.helpers.command import Process, hpo, start
from tests.helpers.postgres import Postgres
from tests.helpers.studies import new_database, small_space
from tests.stress.worker import FAULTS

FULL = os.environ.get("HPO_STRESS") == "full"
ROOT = Path(__file__).parent.parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800 if FULL else 300)]


def record(name: str, **figures: Any) -> None:
    """Keep a figure of the full form for the README."""
    if FULL:
        print(f"\n{name}: {json.dumps(figures)}")
        path = os.environ.get("HPO_STRESS_OUTPUT")
        if path:
            with Path(path).open("a") as output:
                output.write(json.dumps({"test": name, **figures}) + "\n")


class Field:
    """A study under stress: its store, its workers, and what they said."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.log = folder / "admitted.txt"
        self.workers: list[Process] = []
        self.outputs: list[Path] = []

    @property
    def url(self) -> str:
        return self.store.url.render_as_string(hide_password=False)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HPO_STORAGE": self.url,
            "HPO_ARTIFACTS": str(self.folder / "artifacts"),
            "STRESS_LOG": str(self.log),
            "PYTHONPATH": str(ROOT),
        }

    def make(self, trials: int, epochs: int, pruner: str = "none", name: str = "s", every: float = 0.0) -> StudyRecord:
        recipe = StudyRecipe(
            budget=Budget(trials=trials, max_failures=10**6),
            pruner=Pruner(name=pruner),  # type: ignore[arg-type]
            checkpoints=Checkpoints(every_seconds=every),
        )
        assert studies.create(self.store, name, "small", small_space(epochs=epochs), recipe, "f" * 64)
        return studies.load_study(self.store, name)

    def start(self, *options: str, study: str = "s") -> Process:
        output = self.folder / f"worker-{len(self.workers)}.log"
        output.touch()
        worker = Process(
            "--study", study, *options,
            module="tests.stress.worker", folder=ROOT, environment=self.environment, output=output,
        )  # fmt: skip
        self.workers.append(worker)
        self.outputs.append(output)
        return worker

    def join(self, seconds: float = 1200) -> None:
        """Wait for all workers that were not killed; none may have ended with an error."""
        deadline = time.monotonic() + seconds
        for worker, output in zip(self.workers, self.outputs, strict=True):
            code = worker.wait(max(1.0, deadline - time.monotonic()))
            assert code in (0, -signal.SIGKILL), output.read_text()

    def said(self) -> str:
        return "\n".join(output.read_text() for output in self.outputs)

    def trials(self, study: str = "s") -> list[optuna.trial.FrozenTrial]:
        return optuna.load_study(study_name=study, storage=self.url).trials

    def admissions(self) -> Counter[int]:
        """How often each trial was given to an engine from its start."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return Counter(int(key) for key, epochs, _ in lines if epochs == "0")


@pytest.fixture
def field(store: Store, tmp_path: Path) -> Iterator[Field]:
    made = Field(store, tmp_path)
    yield made
    for worker in made.workers:
        worker.kill()


def check_curves(trials: list[optuna.trial.FrozenTrial]) -> None:
    """Every report of every trial is the one of the uninterrupted trial."""
    for trial in trials:
        config = TrialConfig.from_dict(trial.user_attrs["config"], "trial")
        diverged = trial.user_attrs.get("failure", {}).get("kind") == "diverged"
        steps = {s: v for s, v in trial.intermediate_values.items() if not (diverged and v == 0.0)}
        assert steps == {epoch: accuracy(config, epoch) for epoch in steps}, trial.number
        assert sorted(steps) == list(range(1, len(steps) + 1)), trial.number


def check_finished(field: Field, count: int) -> list[optuna.trial.FrozenTrial]:
    """Exactly so many trials are finished, none is running or waiting; return the finished ones."""
    trials = field.trials()
    states = Counter(t.state.name for t in trials)
    assert states["COMPLETE"] + states["PRUNED"] == count, states
    assert states["RUNNING"] == states["WAITING"] == 0, states
    assert sorted(t.number for t in trials) == list(range(len(trials)))
    with field.store.read() as connection:
        assert connection.execute(sa.select(schema.hpo_leases)).all() == []
    return [t for t in trials if t.state.name != "FAIL"]


def test_many_processes_share_a_store(field: Field) -> None:
    """16 processes on one SQLite file with a dashboard polling it; 32 on Postgres."""
    if field.store.is_sqlite:
        processes, trials, epochs, pause = (16, 400, 10, 0.1) if FULL else (6, 40, 5, 0.02)
    else:
        processes, trials, epochs, pause = (32, 1000, 10, 0.1) if FULL else (8, 50, 5, 0.02)
    field.make(trials, epochs, every=30.0)
    polls: list[float] = []
    dashboard = start("dashboard", "--port", "0", folder=field.folder, environment=field.environment)
    address = dashboard.first_error_line().partition("is shown at ")[2].split("/dashboard")[0]
    over = threading.Event()

    def poll() -> None:
        while not over.wait(1.0):
            asked = time.monotonic()
            with urllib.request.urlopen(f"{address}/api/studies/1", timeout=60) as answer:
                assert json.loads(answer.read())["name"] == "s"
            polls.append(time.monotonic() - asked)

    poller = threading.Thread(target=poll)
    poller.start()
    began = time.monotonic()
    for _ in range(processes):
        field.start("--epoch-seconds", str(pause))
    field.join()
    wall = time.monotonic() - began
    over.set()
    poller.join()
    dashboard.kill()
    check_curves(check_finished(field, trials))
    assert set(field.admissions().values()) == {1}, "a trial was claimed twice"
    assert not any(word in field.said().lower() for word in ("locked", "traceback", "error"))
    ideal = trials * epochs * pause / processes
    record(
        f"{processes} processes on {field.store.url.get_backend_name()}",
        trials=trials,
        wall_seconds=round(wall, 1),
        ideal_seconds=round(ideal, 1),
        ratio=round(wall / ideal, 2),
        dashboard_polls=len(polls),
        slowest_poll_seconds=round(max(polls, default=0.0), 2),
    )
    if FULL and field.store.is_sqlite:
        assert wall <= 3 * ideal


def test_kills_cost_nothing_but_time(field: Field) -> None:
    """kill -9, again and again: the budget stays exact, nothing stays RUNNING, no curve has a scar."""
    trials, epochs, kills, pause = (60, 20, 30, 0.25) if FULL else (10, 10, 4, 0.05)
    field.make(trials, epochs, pruner="none" if FULL else "successive_halving")
    chance = random.Random(1)
    running = [field.start("--epoch-seconds", str(pause)) for _ in range(4 if FULL else 3)]
    deadline = time.monotonic() + 60
    while not field.log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    killed = 0  # until a worker ends by itself: then the study is over
    while killed < kills and not any(w.poll() == 0 for w in running):
        time.sleep(chance.uniform(1.5, 3.0) if FULL else chance.uniform(0.3, 1.0))
        # The one at work for longest: most others are still starting.
        victim = next((w for w in running if w.poll() is None), running[0])
        if victim.poll() is None:
            victim.kill()
            victim.wait()
            killed += 1
        running = [w for w in running if w is not victim]
        running.append(field.start("--epoch-seconds", str(pause)))
    field.join()
    finished = check_finished(field, trials)
    check_curves(finished)
    resumed = [t for t in finished if "continues" in t.user_attrs]
    lost = [t for t in field.trials() if t.state.name == "FAIL"]
    assert all(t.user_attrs["failure"]["kind"] == "lost" for t in lost)
    record(
        f"kill -9 on {field.store.url.get_backend_name()}",
        kills=killed,
        finished=len(finished),
        resumed=len(resumed),
        lost=len(lost),
        running=0,
    )
    assert killed == kills or not FULL


@pytest.fixture
def server() -> Iterator[Postgres]:
    running = Postgres()
    yield running
    running.remove()


def test_a_store_that_is_away_costs_no_report_and_no_trial(server: Postgres, tmp_path: Path) -> None:
    """Postgres is stopped, twice, under four workers."""
    store = open_store(parse(server.url), create=True)
    field = Field(store, tmp_path)
    trials, epochs, pause, away = (40, 60, 0.2, 60.0) if FULL else (4, 20, 0.15, 2.5)
    field.make(trials, epochs)
    for _ in range(4 if FULL else 2):
        field.start("--epoch-seconds", str(pause))
    until(field.log.exists)
    outages = 0
    for _ in range(2):
        time.sleep(8 if FULL else 1.5)
        server.stop()
        time.sleep(away)
        server.start()
        outages += 1
    field.join()
    finished = check_finished(field, trials)
    check_curves(finished)
    assert all(len(t.intermediate_values) == epochs for t in finished)
    assert all(t.state.name == "COMPLETE" for t in field.trials()), "a trial was failed"
    assert set(field.admissions().values()) == {1}
    record("Postgres away", outages=outages, seconds_each=away, trials=trials, reports=trials * epochs, failed=0)


def test_faults_of_a_fifth_of_the_trials_are_recorded(field: Field) -> None:
    trials = 120 if FULL else 40
    field.make(trials, 4)
    for _ in range(4 if FULL else 2):
        field.start("--epoch-seconds", "0.002", "--faults")
    field.join()
    check_finished(field, trials)
    kinds: Counter[str] = Counter()
    for trial in field.trials():
        seed = trial.user_attrs["config"]["seed"]
        expected = FAULTS.get(seed % 15)
        if expected == "oom" and seed % 2 == 0:
            assert trial.user_attrs["config"]["accumulation"] == 4 and "failure" not in trial.user_attrs
            kinds["oom, then trained in parts"] += 1
            continue
        assert trial.user_attrs.get("failure", {}).get("kind") == expected
        if expected:
            kinds[expected] += 1
            assert trial.state.name == ("PRUNED" if expected == "diverged" else "FAIL")
            assert trial.user_attrs["failure"]["message"] == "as planned"
    assert len(kinds) >= 3
    record(f"faults on {field.store.url.get_backend_name()}", finished=trials, **kinds)


def test_a_clock_that_is_moved_by_an_hour_changes_nothing(field: Field) -> None:
    """Two workers whose clocks are an hour apart; and the store's own clock jumps back and forth."""
    trials = 30 if FULL else 12
    study = field.make(trials, 10)
    field.start("--epoch-seconds", "0.05")
    field.start("--epoch-seconds", "0.05", "--clock-ahead", "3600")
    field.start("--epoch-seconds", "0.05", "--clock-ahead", "-3600")
    began = time.monotonic()
    moved = 3600.0
    while any(worker.poll() is None for worker in field.workers):
        time.sleep(0.7)
        with field.store.write() as connection:
            table = schema.hpo_studies
            connection.execute(sa.update(table).values(last_tick=table.c.last_tick + moved))
        moved = -moved
    wall = time.monotonic() - began
    field.join()
    check_curves(check_finished(field, trials))
    assert {t.state.name for t in field.trials()} == {"COMPLETE"}
    with field.store.read() as connection:
        active = stopping.budget_of(connection, study.study_id)[1].active_seconds
    # Each jump can cost one beat's cap; an hour never counts.
    assert active < 6 * wall + 60


@pytest.mark.skipif(os.geteuid() != 0, reason="makes devices, which root alone may")
def test_a_full_disk_and_a_missing_folder_cost_checkpoints_not_trials(field: Field) -> None:
    study = field.make(6, 12)
    folder = field.folder / "artifacts" / study.uid
    (folder / "checkpoints").mkdir(parents=True)
    for root in range(6):  # the kernel's own 'No space left on device', at every write
        os.mknod(folder / "checkpoints" / f"{root}.safetensors", 0o666 | stat.S_IFCHR, Path("/dev/full").stat().st_rdev)
    field.start("--epoch-seconds", "0.05")
    deadline = time.monotonic() + 30
    while "no checkpoints can be written" not in field.said() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "No space left on device" in field.said()
    folder.rename(folder.with_name("moved away"))  # at once, where deleting file by file would race with the writer
    field.join()
    check_curves(check_finished(field, 6))
    assert field.said().count("no checkpoints can be written") <= 2, "one warning, not one per epoch"


def test_a_worker_that_slept_finds_its_trial_taken_over(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP, long enough to be given up; then SIGCONT: it must not write a line into what is no longer its own."""
    field.make(3, 40)
    sleeper = field.start("--epoch-seconds", "0.05")
    deadline = time.monotonic() + 60
    while not field.log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    sleeper.send_signal(signal.SIGSTOP)
    watch = claims.Watch(grace=1.0)
    reaped: list[int] = []
    while not reaped and time.monotonic() < deadline:
        reaped = claims.reap_dead(field.store, 1, watch)
        time.sleep(0.2)
    assert reaped == [0]
    sleeper.send_signal(signal.SIGCONT)
    field.join()
    finished = check_finished(field, 3)
    check_curves(finished)
    assert "this worker was declared dead" in field.said()
    [lost] = [t for t in field.trials() if t.state.name == "FAIL"]
    assert lost.number == 0


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_the_whole_run_killed_and_started_again(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """`hpo run` itself, on real data, killed with its workers or alone, until it comes to its end."""
    if kind == "postgres" and not FULL:
        pytest.skip("short form: on SQLite only")
    url = f"sqlite:///{tmp_path}/s.db" if kind == "sqlite" else new_database(request.getfixturevalue("postgres"))
    environment = {**os.environ, "HPO_STORAGE": url, "HPO_ARTIFACTS": str(tmp_path / "artifacts")}
    kills, trials = (10, 60) if FULL else (2, 8)
    run = ["run", "--space", "ann_digits", "--device", "cpu", "--workers", "2", "--trials", str(trials)]
    chance = random.Random(3)
    for i in range(kills):
        process = start(*run, folder=tmp_path, environment=environment)
        time.sleep(chance.uniform(6, 9) if FULL else chance.uniform(2, 3.5))
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.wait()
        for child in children if i % 2 == 0 else []:  # else the workers see that their parent is gone
            child.kill()
        if i % 2:
            psutil.wait_procs(children, timeout=60)
            assert not any(child.is_running() for child in children)
    hpo(*run, folder=tmp_path, environment=environment, seconds=1800 if FULL else 240)
    loaded = optuna.load_study(study_name="ann_digits", storage=parse(url).render_as_string(hide_password=False))
    states = Counter(t.state.name for t in loaded.trials)
    assert states["COMPLETE"] + states["PRUNED"] == trials and states["RUNNING"] == states["WAITING"] == 0, states
    record(f"hpo run killed on {kind}", kills=kills, finished=trials, running=0, lost=states["FAIL"])
