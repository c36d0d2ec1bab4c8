"""Three studies at once under many `kill -9`, and workers whose clocks jump.

`HPO_SOAK=100 pytest tests/stress/test_soak.py -s` kills workers a hundred times on each store.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa

from hpo.store.database import schema
from hpo.store.database.connect import Store
from tests.helpers.studies import on_sqlite
from tests.stress.test_stress import ROOT, Field, check_curves, record

KILLS = int(os.environ.get("HPO_SOAK", "0"))
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200 if KILLS else 300)]


@pytest.fixture
def field(store: Store, tmp_path: Path) -> Iterator[Field]:
    made = Field(store, tmp_path)
    yield made
    for worker in made.workers:
        worker.kill()


def check_over(field: Field, study: str, count: int) -> list[optuna.trial.FrozenTrial]:
    """Exactly so many trials of a study are finished, none runs or waits, and every curve is whole."""
    trials = field.trials(study)
    states = [trial.state.name for trial in trials]
    assert states.count("COMPLETE") + states.count("PRUNED") == count, (study, states)
    assert not {"RUNNING", "WAITING"} & set(states)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    check_curves([trial for trial in trials if trial.state.name != "FAIL"])
    return trials


@pytest.mark.skipif(not KILLS, reason="takes minutes: HPO_SOAK=100 sets the number of kills")
def test_kills_over_three_studies_at_once(field: Field) -> None:
    trials, epochs, pause, names = 3 * max(4, KILLS // 5), 20, "0.1", ("a", "b", "c")
    for name, pruner in zip(names, ("none", "successive_halving", "successive_halving"), strict=True):
        field.make(trials, epochs, pruner=pruner, name=name)
    chance = random.Random(KILLS)
    running = {(name, place): field.start("--epoch-seconds", pause, study=name) for name in names for place in range(2)}
    killed, over = 0, set[str]()
    while killed < KILLS and len(over) < len(names):
        time.sleep(chance.uniform(0.2, 1.0))
        place = chance.choice([place for place in running if place[0] not in over])
        victim = running[place]
        if victim.poll() == 0:
            over.add(place[0])
            continue
        victim.kill()
        victim.wait()
        killed += 1
        running[place] = field.start("--epoch-seconds", pause, study=place[0])
    field.join()
    lost = sum(trial.state.name == "FAIL" for name in names for trial in check_over(field, name, trials))
    with field.store.read() as connection:
        assert connection.execute(sa.select(schema.hpo_leases)).all() == []
    backend = field.store.url.get_backend_name()
    print(f"\n{killed} kills on {backend}: {3 * trials} trials finished, {lost} lost and resumed")
    record(f"soak on {backend}", kills=killed, finished=3 * trials, lost=lost)
    assert killed == KILLS, "the studies were over too soon"


@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime: apt-get install libfaketime")
@on_sqlite
def test_clocks_that_jump_back_and_forth_change_nothing(field: Field) -> None:
    """The wall clocks of two workers jump by hours, each to its own time, while they train."""
    trials = 6
    study = field.make(trials, 10)
    clocks = [field.folder / f"clock-{place}" for place in range(2)]
    workers = []
    for clock in clocks:
        clock.write_text("+0\n")
        environment = field.environment | {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        command = [sys.executable, "-m", "tests.stress.worker", "--study", "s", "--epoch-seconds", "0.1"]
        workers.append(subprocess.Popen(command, cwd=ROOT, env=environment))
    began, chance, jumps = time.monotonic(), random.Random(0), 0
    try:
        while any(worker.poll() is None for worker in workers):
            time.sleep(0.2)
            for clock, sign in zip(clocks, (-1, 1), strict=True):  # days apart, whenever a trial starts
                offset = sign * chance.choice((86400, 86460, 90000, 172800))
                clock.with_suffix(".new").write_text(f"{offset:+d}\n")
                clock.with_suffix(".new").replace(clock)
                jumps += 1
    finally:
        for worker in workers:
            worker.kill()
    wall = time.monotonic() - began
    assert [worker.wait() for worker in workers] == [0, 0] and jumps >= 10
    assert len(check_over(field, "s", trials)) == trials, "a trial was taken from a living worker"
    assert set(field.admissions().values()) == {1}
    days = {trial.datetime_start.date() for trial in field.trials() if trial.datetime_start is not None}
    assert len(days) > 1, "the clocks did not jump"
    with field.store.read() as connection:
        ours = schema.hpo_studies.c
        active = connection.execute(sa.select(ours.active_seconds).where(ours.study_id == study.study_id)).scalar_one()
    # As above: each jump can cost one beat's cap; hours never count.
    assert 0 < active < 6 * wall + 60
