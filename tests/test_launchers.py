"""The launchers' contract, against all of them; and what is refused before anything starts."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy.engine import URL

import hpo
from hpo.errors import UsageError
from hpo.recipe import Budget, Pruner, StudyRecipe
from hpo.runner.launchers.contract import Ended, Launcher, Order, Resources, Worker
from hpo.runner.launchers.machines import Marker, problem_here, travelling_environment
from hpo.runner.launchers.plan import Plan, Wanted, plan_workers
from hpo.service.create import OpenedStudy, StudyRequest, open_study
from hpo.service.places import parse_options
from hpo.store.database.url import parse
from tests.helpers.cluster import ray_cluster, until
from tests.helpers.command import start
from tests.helpers.fork_server import JOBS_PATH
from tests.helpers.studies import new_database, small_space, trials_of

SQLITE = "sqlite:///studies.db"
POSTGRES = parse("postgresql://nobody@127.0.0.1:1/none")
FOREVER = 100_000


UNPRUNED = StudyRecipe(budget=Budget(trials=100), pruner=Pruner(name="none"))


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A kind of place, with the store that its workers use."""
    url = new_database(request.getfixturevalue("postgres"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPO_STORAGE", url)
    monkeypatch.setenv("HPO_ARTIFACTS", str(tmp_path / "artifacts"))
    if request.param == "ray":
        with ray_cluster() as cluster:
            monkeypatch.setenv("RAY_ADDRESS", cluster.address)
            yield SimpleNamespace(wanted=Wanted(on="ray", workers=3), url=parse(url))
    elif request.param == "slurm":
        monkeypatch.setenv("PYTHONPATH", JOBS_PATH)
        yield SimpleNamespace(wanted=Wanted(on="slurm", workers=3, options={"cluster": "local"}), url=parse(url))
    else:
        yield SimpleNamespace(wanted=Wanted(workers=3, device="cpu"), url=parse(url))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("place", ["local", pytest.param("ray", marks=pytest.mark.cluster), "slurm"], indirect=True)
def test_workers_start_tell_stop_and_die_as_the_contract_says(place: SimpleNamespace, tmp_path: Path) -> None:
    opened = open_study(StudyRequest(space=small_space(epochs=FOREVER), study="s", recipe=UNPRUNED))
    plan = plan_workers(place.wanted, place.url)
    environment = {"HPO_STORAGE": os.environ["HPO_STORAGE"]}
    workers: dict[str, Worker] = {}
    try:
        workers |= {
            name: plan.launcher.start(
                Order(
                    study=study,
                    device=device,
                    engine="solo",
                    log=tmp_path / "logs" / f"{name}.log",
                    environment=environment,
                )
            )
            for (name, study), device in zip(
                {"absent": "no_such_study", "stopped": "s", "killed": "s"}.items(), plan.devices, strict=True
            )
        }
        check_workers(plan.launcher, workers, opened, tmp_path / "logs")
    finally:
        for worker in workers.values():  # where the test fails, they would train for ever
            worker.kill()
        plan.launcher.close()
        opened.store.dispose()


def check_workers(launcher: Launcher, workers: dict[str, Worker], opened: OpenedStudy, logs: Path) -> None:
    ended: dict[str, Ended | None] = {}

    def poll() -> dict[str, Ended | None]:
        ended.update({name: worker.poll() for name, worker in workers.items()})
        return ended

    until(lambda: poll()["absent"])
    assert ended["absent"] == Ended(1)
    assert (logs / "absent.log").read_text().splitlines()[-1].startswith('hpo: No study named "no_such_study"')

    def in_training() -> bool:
        poll()
        return [t.state.name for t in trials_of(opened.store, opened.study) if t.intermediate_values] == ["RUNNING"] * 2

    until(in_training)
    assert ended["stopped"] is None and ended["killed"] is None and all(worker.place for worker in workers.values())
    workers["stopped"].stop()
    workers["stopped"].stop()
    until(lambda: poll()["stopped"])
    assert ended["stopped"] == Ended(0)
    assert "told to stop" in (logs / "stopped.log").read_text()
    assert sorted(t.state.name for t in trials_of(opened.store, opened.study)) == ["RUNNING", "WAITING"]
    workers["killed"].kill()
    workers["killed"].kill()
    assert poll()["killed"] == Ended(-9)
    for worker in workers.values():  # they do nothing to a worker that has ended
        worker.stop()
        worker.kill()
    assert poll() == ended


@pytest.mark.parametrize(
    ("wanted", "url", "message"),
    [
        (Wanted(on="moon"), POSTGRES, 'on: must be local, ray, ray://HOST:PORT or slurm, got "moon".'),
        (Wanted(on="slurm://x"), POSTGRES, 'on: must be local, ray, ray://HOST:PORT or slurm, got "slurm://x".'),
        (Wanted(on="local", cpus=2), POSTGRES, "cpus: goes with --on ray or --on slurm, got --on local. Leave it out."),
        (Wanted(on="ray", cpus=0), POSTGRES, "cpus: must be above 0, got 0."),
        (Wanted(on="ray", gpus=-1), POSTGRES, "gpus: must be at least 0, got -1."),
        (Wanted(on="ray", gpus=2), POSTGRES, "gpus: a worker trains on one GPU at most"),
        (Wanted(on="ray", device="cuda:1"), POSTGRES, "gpus: a worker trains on one GPU at most"),
        (Wanted(on="ray", device="cpu", gpus=1), POSTGRES, "gpus: goes with a CUDA device, got 1 and device cpu."),
        (Wanted(on="ray", workers=0), POSTGRES, "workers: must be at least 1, got 0."),
        (Wanted(on="ray://here"), POSTGRES, "on: must be ray://HOST:PORT, got ray://here."),
        (Wanted(on="ray://127.0.0.1:1"), POSTGRES, "on: nothing answers at ray://127.0.0.1:1: "),
        (Wanted(on="ray", options={"partition": "gpu"}), POSTGRES, 'on_option: ray has no option "partition".'),
        (Wanted(on="slurm"), POSTGRES, "workers: is required with Slurm, got none."),
        (Wanted(on="slurm", workers=1, options={"cluster": "x"}), POSTGRES, "on_option: cluster must be slurm or"),
        (Wanted(on="slurm", workers=1, gpus=0.5, options={"cluster": "local"}), POSTGRES, "on: Slurm gives whole CPUs"),
        (
            Wanted(on="slurm", workers=1, options={"cluster": "local", "no_such": "1"}),
            POSTGRES,
            "on_option: submitit refuses: Unknown argument 'no_such'",
        ),
        (
            Wanted(on="slurm", workers=1, options={"cluster": "local", "time": "long"}),
            POSTGRES,
            "on_option: submitit refuses: invalid literal",
        ),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    wanted: Wanted, url: URL, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        plan_workers(wanted, url)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_ray_cluster_whose_token_is_missing_is_an_error_of_one_line(tmp_path: Path) -> None:
    ray, grpc = (pytest.importorskip(name, reason="Ray is not installed") for name in ("ray.exceptions", "grpc"))
    if not hasattr(ray, "AuthenticationError"):
        pytest.skip("this version of Ray knows no tokens")
    cluster = grpc.server(ThreadPoolExecutor(1))
    address = f"ray://127.0.0.1:{cluster.add_insecure_port('127.0.0.1:0')}"
    cluster.start()
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}
    environment = os.environ | token | {"HPO_STORAGE": f"sqlite:///{tmp_path}/studies.db"}
    run = start("run", "--space", "ann_digits", "--on", address, folder=tmp_path, environment=environment)
    assert run.wait() == 2
    cluster.stop(None)
    refused = "hpo: --on: Ray refuses: RAY_AUTH_TOKEN_PATH is set but file cannot be opened or is empty: "
    assert run.stderr.startswith(refused) and run.stderr.count("\n") == 1


def test_slurm_without_slurm_and_on_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    wanted = Wanted(on="slurm", workers=2)
    with pytest.raises(UsageError, match="sbatch is not found"):
        plan_workers(wanted, POSTGRES)
    for program in ("sbatch", "srun"):
        (tmp_path / program).touch(mode=0o755)
    with pytest.raises(UsageError, match="storage: must be Postgres with Slurm, got sqlite:///studies"):
        plan_workers(wanted, parse(SQLITE))
    monkeypatch.delenv("HPO_ARTIFACTS", raising=False)
    with pytest.raises(UsageError, match="HPO_ARTIFACTS: must be set with Slurm, got nothing: runs/artifacts is"):
        plan_workers(wanted, POSTGRES)


@pytest.mark.parametrize(("package", "on"), [("ray", "ray"), ("submitit", "slurm")])
def test_an_extra_that_is_not_installed_is_named(package: str, on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"not installed. Install it: pip install 'hpo\[{on}\]'"):
        plan_workers(Wanted(on=on, workers=1), POSTGRES)


def test_options_are_pairs() -> None:
    assert parse_options(["partition=gpu", "comment=a=b"]) == {"partition": "gpu", "comment": "a=b"}
    for wrong in ("partition", "=gpu", "partition="):
        with pytest.raises(UsageError, match="on_option: must be KEY=VALUE"):
            parse_options([wrong])


def test_a_machine_that_does_not_fit_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = parse(f"sqlite:///{tmp_path}/studies.db")
    monkeypatch.setenv("HPO_STORAGE", str(url))
    monkeypatch.setenv("HPO_ARTIFACTS", str(tmp_path / "here"))
    marker = Marker.put(url)
    assert problem_here(hpo.__version__, marker) == ""
    assert "hpo must be version 9.9.9 as where it was started" in problem_here("9.9.9", marker)
    Path(marker.path).write_text("of another run")
    assert "HPO_ARTIFACTS: must be the same folder on all machines" in problem_here(hpo.__version__, marker)
    marker.remove()
    assert "HPO_ARTIFACTS: must be the same folder on all machines" in problem_here(hpo.__version__, marker)
    assert list((tmp_path / "here").iterdir()) == []
    monkeypatch.setenv("HPO_STORAGE", "postgresql://nobody@127.0.0.1:1/none")
    assert "postgresql://nobody@127.0.0.1:1/none" in problem_here(hpo.__version__, marker)


def test_what_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"HPO_ARTIFACTS": "shared", "HPO_PYTHON": "/nets.py", "AWS_SECRET_ACCESS_KEY": "x"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HPO_DATA", raising=False)
    assert travelling_environment(parse("postgresql://me:secret@db/hpo")) == {
        "HPO_STORAGE": "postgresql+psycopg://me:secret@db/hpo",
        "HPO_ARTIFACTS": str(tmp_path / "shared"),
        "HPO_PYTHON": "/nets.py",
    }


def test_on_this_machine_nothing_else_is_needed() -> None:
    plan = plan_workers(Wanted(workers=2, device="cpu"), parse(SQLITE))
    assert isinstance(plan, Plan) and plan.devices == ["cpu", "cpu"] and plan.launcher.waits is False
    assert str(Resources(1, 0.25)) == "1 CPU and 0.25 GPU" and str(Resources(4)) == "4 CPUs"
