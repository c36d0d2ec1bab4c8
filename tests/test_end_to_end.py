"""The whole product, as a user runs it: real processes, real data, both kinds of store."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import optuna
import pytest
import safetensors.torch
import sqlalchemy as sa

from hpo.config import TrialConfig
from hpo.models import build_model
from tests.helpers.command import Ended, Process, hpo, start
from tests.helpers.documents import shorten

pytestmark = pytest.mark.slow

Environment = dict[str, str]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Of commands whose trials take half a second."""
    shorten(tmp_path, epochs=12)
    return {**os.environ, "HPO_STORAGE": f"sqlite:///{tmp_path}/studies.db", "COLUMNS": "200"}


def trials_of(environment: Environment, name: str) -> list[optuna.trial.FrozenTrial]:
    url = environment["HPO_STORAGE"].replace("postgresql://", "postgresql+psycopg://")
    return optuna.load_study(study_name=name, storage=url).trials


def test_run_resume_export_train(store_url: str, environment: Environment, tmp_path: Path) -> None:
    environment |= {"HPO_STORAGE": store_url}
    run = ["run", "--space", "ann_digits", "--workers", "2", "--device", "cpu"]
    if store_url.startswith("sqlite"):
        # New interpreters, as a user has them; elsewhere, processes that have imported everything already.
        command = [sys.executable, "-m", "hpo", *run, "--trials", "6", "--workers", "1"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        first = Ended(0, done.stdout, done.stderr)
    else:
        first = hpo(*run, "--trials", "6", folder=tmp_path, environment=environment)
    assert "baseline: 64-32, Adam lr 1e-3, batch 32" in first.stdout
    assert "hpo export ann_digits -o best.toml" in first.stderr
    trials = trials_of(environment, "ann_digits")
    assert sum(t.state.name in ("COMPLETE", "PRUNED") for t in trials) == len(trials) == 6
    for trial in trials:
        assert {"config", "epochs", "seconds", "device", "parameters", "overfitting_gap"} <= trial.user_attrs.keys()

    over = hpo(*run, folder=tmp_path, environment=environment)
    assert "study ann_digits is over: all 6 trials are finished." in over.stderr
    assert "For more: hpo run --study ann_digits --trials 12" in over.stderr
    assert over.stdout == first.stdout
    hpo("run", "--study", "ann_digits", "--trials", "8", "--workers", "1", folder=tmp_path, environment=environment)
    assert len(trials_of(environment, "ann_digits")) == 8

    (tmp_path / "other.toml").write_text("[pruner]\nname = 'median'\n")
    refused = hpo(*run, "--recipe", "other.toml", "--trials", "9", folder=tmp_path, environment=environment, code=1)
    assert 'recipe.pruner.name: "successive_halving" in the study, "median" now' in refused.stderr
    assert len(trials_of(environment, "ann_digits")) == 8

    shown = json.loads(hpo("studies", "show", "ann_digits", "--json", folder=tmp_path, environment=environment).stdout)
    assert shown["counts"]["COMPLETE"] + shown["counts"]["PRUNED"] == 8
    best = shown["best_trials"][0]
    listed = json.loads(hpo("studies", "list", "--json", folder=tmp_path, environment=environment).stdout)
    assert [study["best_value"] for study in listed] == [best["value"]]

    if not store_url.startswith("sqlite"):
        return  # from here on the store plays no part
    hpo("export", "ann_digits", "-o", "best.toml", folder=tmp_path, environment=environment)
    exported = tomllib.loads((tmp_path / "best.toml").read_text())
    assert TrialConfig.from_dict(exported["config"], "best.toml").to_dict() == best["config"]
    assert exported["provenance"]["trial"] == best["number"]
    assert exported["provenance"]["data_fingerprint"] == shown["data_fingerprint"]

    alone = {k: v for k, v in environment.items() if k != "HPO_STORAGE"}
    trained = hpo("train", "best.toml", "-o", "model", "--device", "cpu", folder=tmp_path, environment=alone)
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    # The same config, seed and data on the same machine: the very curve that the search saw.
    assert metrics["validation_accuracy"] == best["value"]
    assert f"test accuracy {metrics['test_accuracy']:.4f} (95 % interval" in trained.stdout
    assert metrics["test_accuracy"] > 0.9
    config = TrialConfig.from_dict(tomllib.loads((tmp_path / "model" / "config.toml").read_text())["config"], "config")
    model = build_model(config.model, (1, 8, 8), 10)
    model.load_state_dict(safetensors.torch.load_file(tmp_path / "model" / "model.safetensors"))


def wait_for_trials(process: Process, environment: Environment, name: str, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr
        # Not before the tables are there: Optuna would make them too, at the same time.
        is_made = f'made study "{name}"' in process.stderr
        if is_made and sum(t.state.is_finished() for t in trials_of(environment, name)) >= count:
            return
        time.sleep(0.3)
    raise AssertionError(f"no trial finished in time: {process.stderr}")


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_leaves_nothing_running(environment: Environment, tmp_path: Path, presses: int) -> None:
    run = ["run", "--space", "ann_digits", "--trials", "1000", "--workers", "2", "--device", "cpu"]
    process = start(*run, folder=tmp_path, environment=environment)
    wait_for_trials(process, environment, "ann_digits", 2)
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert process.wait(30) == 130
    assert "Traceback" not in process.stderr
    states = [t.state.name for t in trials_of(environment, "ann_digits")]
    assert "RUNNING" not in states and "FAIL" not in states
    done = sum(s in ("COMPLETE", "PRUNED") for s in states)
    hpo(
        "run",
        "--study",
        "ann_digits",
        "--trials",
        str(done + 2),
        "--workers",
        "1",
        folder=tmp_path,
        environment=environment,
    )
    finished = [t for t in trials_of(environment, "ann_digits") if t.state.name in ("COMPLETE", "PRUNED")]
    assert len(finished) == done + 2


def test_workers_that_are_ended_from_outside_are_replaced(environment: Environment, tmp_path: Path) -> None:
    run = ["run", "--space", "ann_digits", "--trials", "1000", "--workers", "2", "--device", "cpu", "--engine", "solo"]
    process = start(*run, folder=tmp_path, environment=environment)
    wait_for_trials(process, environment, "ann_digits", 1)
    ended = wait_for_workers(environment, set())
    for pid in ended:
        os.kill(pid, signal.SIGTERM)
    assert len(wait_for_workers(environment, ended)) == 2
    assert process.stderr.count("a worker died (signal 15); another takes its place in") == 2
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    states = [t.state.name for t in trials_of(environment, "ann_digits")]
    assert "RUNNING" not in states and "FAIL" not in states
    done = sum(state in ("COMPLETE", "PRUNED") for state in states)
    assert f"study ann_digits is stopped: {done} of 1000 trials done, {1000 - done} left" in process.stderr


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are set on Linux only")
def test_a_full_disk_is_told_and_waited_out(environment: Environment, tmp_path: Path) -> None:
    """The disk is full for the processes of the run: files beyond 16 KB cannot grow, as with a quota."""
    run = ["run", "--space", "ann_digits", "--trials", "12", "--workers", "1", "--device", "cpu", "--engine", "solo"]
    process = start(*run, folder=tmp_path, environment=environment)
    wait_for_trials(process, environment, "ann_digits", 1)
    everyone = [process.pid, *wait_for_workers(environment, set(), count=1)]
    _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    for said, limit in (("the store takes no changes: ", 16384), ("the store answers again", most)):
        for pid in everyone:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, most))
        deadline = time.monotonic() + 30
        while said not in process.stderr and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr
            time.sleep(0.1)
        assert said in process.stderr
    assert process.wait(120) == 0, process.stderr
    assert sum(t.state.name in ("COMPLETE", "PRUNED") for t in trials_of(environment, "ann_digits")) == 12
    assert [line for line in process.stderr.splitlines() if "worker died" in line] == []


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has /dev/full")
def test_output_that_has_no_room_is_an_error_of_one_line(environment: Environment, tmp_path: Path) -> None:
    for buffered in ("", "1"):
        command, variables = [sys.executable, "-m", "hpo", "--help"], environment | {"PYTHONUNBUFFERED": buffered}
        with FULL.open("w") as full:
            ended = subprocess.run(command, env=variables, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        said = "hpo: the output cannot be written: No space left on device. Make room, or write it elsewhere.\n"
        assert (ended.returncode, ended.stderr) == (1, said)


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has /dev/full")
def test_a_run_whose_log_has_no_room_goes_on(environment: Environment, tmp_path: Path) -> None:
    run = ["run", "--space", "ann_digits", "--trials", "3", "--workers", "1", "--device", "cpu"]
    process = Process(*run, folder=tmp_path, environment=environment, output=FULL)
    assert process.wait(120) == 1  # as the table of the best trials, on stdout, had no room either
    assert len([t for t in trials_of(environment, "ann_digits") if t.state.name in ("COMPLETE", "PRUNED")]) == 3


def wait_for_workers(environment: Environment, others: set[int], count: int = 2) -> set[int]:
    """Wait until so many workers are at the study, none of them of `others`; return their process ids."""
    deadline, pids = time.monotonic() + 60, set[int]()
    engine = sa.create_engine(environment["HPO_STORAGE"])
    while time.monotonic() < deadline and (len(pids) < count or pids & others):
        with engine.connect() as connection:
            rows = connection.execute(sa.text("SELECT state_json FROM hpo_workers")).scalars()
            pids = {json.loads(row)["process"] for row in rows}
        time.sleep(0.2)
    engine.dispose()
    return pids


def test_a_worker_joins_from_another_terminal(environment: Environment, tmp_path: Path) -> None:
    hpo("init", "--space", "ann_digits", "--trials", "12", folder=tmp_path, environment=environment)
    run = ["run", "--study", "ann_digits", "--trials", "12", "--workers", "1", "--device", "cpu"]
    first = start(*run, folder=tmp_path, environment=environment)
    second = start("worker", "--study", "ann_digits", "--device", "cpu", folder=tmp_path, environment=environment)
    assert first.wait(120) == 0 and second.wait(30) == 0
    finished = [t for t in trials_of(environment, "ann_digits") if t.state.name in ("COMPLETE", "PRUNED")]
    assert len(finished) == 12


def test_data_that_differs_is_refused(environment: Environment, tmp_path: Path) -> None:
    hpo("init", "--space", "ann_digits", "--trials", "1", folder=tmp_path, environment=environment)
    from hpo.store.database import schema
    from hpo.store.database.connect import open_store
    from hpo.store.database.url import parse

    store = open_store(parse(environment["HPO_STORAGE"]))
    table = schema.study_user_attributes
    with store.write() as connection:
        fingerprint = table.update().where(table.c.key == "data_fingerprint").values(value_json=json.dumps("e" * 64))
        connection.execute(fingerprint)
    for command in (["run", "--study", "ann_digits", "--trials", "5"], ["worker", "--study", "ann_digits"]):
        refused = hpo(*command, folder=tmp_path, environment=environment, code=1)
        assert "its data must have fingerprint eeeeeeeeeeeeeeee..., got" in refused.stderr
    assert [t.state.name for t in trials_of(environment, "ann_digits")] == ["WAITING"], "the baseline, not trained"


def test_an_unknown_device_stops_the_run_with_its_name(environment: Environment, tmp_path: Path) -> None:
    run = ["run", "--space", "ann_digits", "--device", "cuda:9", "--trials", "2"]
    stopped = hpo(*run, folder=tmp_path, environment=environment, code=1)
    assert 'No device named "cuda:9" on this machine. Known: auto, cpu' in stopped.stderr
    assert "Traceback" not in stopped.stderr


def test_an_export_without_a_complete_trial_says_so(environment: Environment, tmp_path: Path) -> None:
    hpo("init", "--space", "ann_digits", "--trials", "2", folder=tmp_path, environment=environment)
    refused = hpo("export", "ann_digits", "-o", "best.toml", folder=tmp_path, environment=environment, code=1)
    assert 'Study "ann_digits" has no complete trial' in refused.stderr
    assert not (tmp_path / "best.toml").exists()


def test_doctor_proves_that_a_killed_trial_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    done = hpo("doctor", "resume", "--device", "cpu", "--json", folder=tmp_path)
    proof = json.loads(done.stdout)
    assert proof["differing"] == [] and 0 < proof["killed_after"] < proof["epochs"] and proof["tensors"] > 10
