"""A study by jobs of submitit's local executor: the same as under Slurm, without a Slurm."""

import os
import signal
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest

from hpo.store.database.connect import open_store
from hpo.store.database.url import parse
from tests.helpers.cluster import until, workers_of
from tests.helpers.command import hpo, start
from tests.helpers.fork_server import JOBS_PATH

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TRIALS = 8


def job_of(worker: dict[str, Any]) -> int:
    """Return the process of a worker's job: the only child of the one that submitit names the job by."""
    [job] = psutil.Process(int(worker["place"].rpartition("/")[2])).children()
    return job.pid


def test_a_study_by_jobs_of_which_one_is_preempted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    environment = {**os.environ, "HPO_STORAGE": url, "COLUMNS": "200", "PYTHONPATH": JOBS_PATH}
    command = ["run", "--space", "ann_digits", "--trials", str(TRIALS), "--engine", "solo", "--workers", "2"]
    command += ["--on", "slurm", "--on-option", "cluster=local"]
    run = start(*command, folder=tmp_path, environment=environment)
    until(lambda: run.poll() is not None or (tmp_path / "studies.db").exists())
    assert run.poll() is None, run.stderr
    until(lambda: run.poll() is not None or "made study" in run.stderr)
    store = open_store(parse(url))
    until(lambda: workers_of(store) or run.poll() is not None)
    os.kill(job_of(workers_of(store)[0]), signal.SIGUSR2)  # as Slurm does before it takes a job away
    until(lambda: "a worker was lost (Slurm takes its job away)" in run.stderr or run.poll() is not None)
    assert run.wait() == 0, run.stderr
    assert "a worker was lost (Slurm takes its job away); another takes its place" in run.stderr
    trials = optuna.load_study(study_name="ann_digits", storage=url).trials
    assert [t.state.name for t in trials if t.state.name not in ("COMPLETE", "PRUNED")] == []
    assert len(trials) == TRIALS  # nothing was run twice: the trial of the preempted job went on under its number
    store.dispose()
    shown = hpo("logs", "ann_digits", folder=tmp_path, environment=environment).stdout
    assert "==> worker-0 <==" in shown and "==> worker-1 <==" in shown and "done: all 8 trials are finished" in shown
    whole = hpo("logs", "ann_digits", "1", folder=tmp_path, environment=environment).stdout
    assert whole.splitlines()[-1].endswith("done: all 8 trials are finished")
    unknown = hpo("logs", "ann_digits", "7", folder=tmp_path, environment=environment, code=2)
    assert 'study "ann_digits" has none named "7"' in unknown.stderr
    [folder] = (tmp_path / "runs" / "slurm").iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    assert not any(str(tmp_path / "studies.db") in path.read_text(errors="replace") for path in folder.glob("*.pkl"))
