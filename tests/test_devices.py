"""Which devices the workers of a run get, by what a machine has."""

import sys
from pathlib import Path

import pytest

from hpo.recipe import StudyRecipe
from hpo.runner import devices
from hpo.runner.devices import Accelerators, accelerators, cores, devices_for, visible_mig
from hpo.runner.launchers.local import LocalLauncher
from hpo.runner.supervisor import Supervisor
from hpo.store import studies
from hpo.store.database.connect import open_store
from hpo.store.database.url import parse
from tests.helpers.studies import small_space

LISTED = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)
  MIG 3g.40gb     Device  0: (UUID: MIG-aa)
  MIG 3g.40gb     Device  1: (UUID: MIG-bb)
"""


@pytest.mark.parametrize(
    ("found", "device", "workers", "expected"),
    [
        (Accelerators(gpus=2), "auto", None, ["cuda:0", "cuda:1"]),
        (Accelerators(gpus=2), "cuda", 3, ["cuda:0", "cuda:1", "cuda:0"]),
        (Accelerators(gpus=2), "cuda:1", 2, ["cuda:1", "cuda:1"]),
        (Accelerators(gpus=2), "cuda:1", None, ["cuda:1"]),
        (Accelerators(gpus=2), "cpu", 2, ["cpu", "cpu"]),
        (Accelerators(gpus=1, mig=("MIG-aa", "MIG-bb")), "auto", None, ["cuda:MIG-aa", "cuda:MIG-bb"]),
        (Accelerators(gpus=1, mig=("MIG-aa", "MIG-bb")), "cuda", 3, ["cuda:MIG-aa", "cuda:MIG-bb", "cuda:MIG-aa"]),
        (Accelerators(mps=True), "auto", None, ["mps"]),
        (Accelerators(mps=True), "mps", None, ["mps"]),
        (Accelerators(mps=True), "auto", 2, ["mps", "mps"]),
        (Accelerators(), "auto", 2, ["auto", "auto"]),
        (Accelerators(), "auto", None, ["auto"] * cores()),
        (Accelerators(), "cuda", None, ["cuda"]),
    ],
)
def test_a_worker_for_every_gpu(found: Accelerators, device: str, workers: int | None, expected: list[str]) -> None:
    assert devices_for(device, workers, found) == expected


def test_instances_of_gpus_are_found() -> None:
    assert visible_mig(None, LISTED) == ("MIG-aa", "MIG-bb")
    assert visible_mig("MIG-bb, MIG-cc", LISTED) == ("MIG-bb", "MIG-cc")
    assert visible_mig("0,1", LISTED) == visible_mig("GPU-1", LISTED) == visible_mig(None, "GPU 0: (UUID: GPU-1)") == ()


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_gpus_are_not_asked_for(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    monkeypatch.setattr(devices, "_asked", lambda expression: pytest.fail("torch was imported for nothing"))
    assert accelerators() == Accelerators() or sys.platform == "darwin"


@pytest.mark.slow
def test_a_worker_without_a_usable_device_is_replaced_by_one_without_graphs(tmp_path: Path) -> None:
    store = open_store(parse(f"sqlite:///{tmp_path}/s.db"), create=True)
    assert studies.create(store, "s", "small", small_space(), StudyRecipe(), "f" * 64)
    command = [sys.executable, "-m", "tests.helpers.worker_without_device"]
    supervisor = Supervisor(
        store, studies.load_study(store, "s"), ["cuda:0"], tmp_path, launcher=LocalLauncher(command)
    )
    supervisor.start()
    while supervisor.running:
        supervisor.poll()
    assert not supervisor.failure
    assert supervisor.warnings == ["cuda:0 is trained on without CUDA graphs and Triton from now on: cuda:0: broken"]
