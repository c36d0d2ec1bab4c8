"""The machine: versions, devices, threads, the store, the data, the disk."""

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from hpo import __version__, data
from hpo.artifacts import configured_root
from hpo.doctor.findings import Finding, failure, guarded, milliseconds, ok, warning
from hpo.store.database import schema
from hpo.store.database.conditions import count, has
from hpo.store.database.connect import exists, open_store
from hpo.store.database.url import configured, shown
from hpo.store.leases import claims
from hpo.store.record import State, TrialAttributes

if TYPE_CHECKING:
    import torch

SLOW_MS = 50.0
"""Milliseconds for one query above which a store is too far away, or busy."""
LITTLE_GB = 2.0
"""Free gigabytes below which a disk is reported."""


def check_machine(storage: str | None) -> Iterator[Finding]:
    """Check everything that does not depend on a space: versions, devices, store, data, disk."""
    for check, examine in (
        ("versions", check_versions),
        ("device", check_devices),
        ("store", lambda: check_store(storage)),
        ("data", check_data_sets),
        ("disk", lambda: check_disk(storage)),
    ):
        yield from guarded(check, examine)


def check_versions() -> Iterator[Finding]:
    """Check that torch and torchvision fit each other."""
    import torch
    import torchvision

    listed, missing = [f"hpo {__version__}"], []
    for name in ("optuna", "sqlalchemy", "optuna-dashboard"):
        try:
            listed.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    yield ok("versions", f"Python {platform.python_version()}, torch {torch.__version__}, {', '.join(listed)}")
    for name in missing:
        yield warning("versions", f"{name} is not installed", f"pip install {name}")
    try:
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
        yield ok("versions", f"torchvision {torchvision.__version__} fits torch {torch.__version__}")
    except (RuntimeError, AttributeError):
        both = f"torchvision {torchvision.__version__} was not built for torch {torch.__version__}"
        yield failure("versions", both, "Install both together: pip install --force-reinstall torch torchvision")


def check_devices() -> Iterator[Finding]:
    """Check the devices for training, their free memory, and the load of the machine."""
    import torch

    from hpo.training.devices import choose_device

    device = choose_device("auto")
    if device.type == "cuda":
        for i in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(i)
            text = f"cuda:{i} {torch.cuda.get_device_name(i)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
            if free < 0.2 * total:
                yield warning("device", text, "Another program uses it: see nvidia-smi.")
            else:
                yield ok("device", text)
    else:
        yield ok("device", f"{device}, {os.cpu_count()} cores; one worker per core, one thread each")
    yield from _check_graphs(device)
    if shutil.which("nvidia-smi") and not torch.cuda.is_available():
        yield warning("device", "torch cannot use the NVIDIA driver of this machine", "Install a torch built for CUDA.")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    cores = os.cpu_count() or 1
    if load > 0.5 * cores:
        yield warning("device", f"the machine is busy: load {load:.1f} on {cores} cores", "Trials will take longer.")


def _check_graphs(device: "torch.device") -> Iterator[Finding]:
    """Check on every GPU that a small training is captured as a CUDA graph, and does the same when it is replayed."""
    import torch

    from hpo.training.graphed_run import graph_failure_on

    for i in range(torch.cuda.device_count() if device.type == "cuda" else 0):
        if reason := graph_failure_on(torch.device("cuda", i)):
            remedy = "Trials take several times as long. Try another version of torch or of the driver."
            yield warning("device", f"cuda:{i}: trained without CUDA graphs: {reason}", remedy)
        else:
            yield ok("device", f"cuda:{i}: a training step as a CUDA graph does what the plain step does")


def check_store(storage: str | None) -> Iterator[Finding]:
    """Check how fast the store answers, and that every running trial has a living worker."""
    url = configured(storage)
    if not exists(url):
        yield warning("store", f"{shown(url)} does not exist yet", "hpo run and hpo init create it.")
        return
    store = open_store(url)

    def ask() -> None:
        with store.read() as connection:
            connection.execute(sa.select(sa.func.count()).select_from(schema.studies)).scalar()

    def lock() -> None:
        with store.write() as connection:
            connection.execute(sa.select(sa.func.count()).select_from(schema.hpo_leases)).scalar()

    reading, writing = milliseconds(ask), milliseconds(lock)
    text = f"{shown(url)} answers in {reading:.1f} ms, a write transaction takes {writing:.1f} ms"
    if max(reading, writing) > SLOW_MS:
        yield warning("store", text, "Move it to a nearer machine, or check what else runs on its machine.")
    else:
        yield ok("store", text)
    trials, leases, workers = schema.trials.c, schema.hpo_leases.c, schema.hpo_workers.c
    with store.read() as connection:
        leased = sa.select(leases.trial_id)
        stray = sa.and_(trials.state == State.RUNNING, trials.trial_id.not_in(leased))
        zombies = connection.execute(sa.select(sa.func.count()).where(stray)).scalar_one()
        known = list(connection.execute(sa.select(workers.worker_id)).scalars())
        without_graphs = count(connection, has(TrialAttributes.graph_failure))
    if without_graphs:
        text = f"{without_graphs} trials were trained without a CUDA graph, which failed"
        yield warning("store", text, "hpo trials show gives the reason (graph_failure).")
    dead = [worker for worker in known if claims.died_here(worker)]
    if zombies:
        yield warning(
            "store", f"{zombies} trials are RUNNING without a worker of hpo", "Were they created by another tool?"
        )
    elif dead:
        remedy = "Their trials are resumed as soon as a worker of the study runs."
        yield warning("store", f"{len(dead)} of {len(known)} workers are dead", remedy)
    else:
        yield ok("store", f"no trial without a worker; {len(known)} workers are running")


def check_data_sets() -> Iterator[Finding]:
    """Check which data sets are in the cache, complete and intact."""
    for name in data.known():
        state = data.state(data.info(name))
        if state == "ready":
            yield ok("data", f"{name} is complete and intact")
        else:
            yield warning("data", f"{name}: {state}", f"hpo data fetch {name}")


def check_disk(storage: str | None) -> Iterator[Finding]:
    """Check the free space and the permissions of the folders for data and artifacts."""
    root = configured_root(configured(storage))
    places = {"data": data.cache_folder()} | ({} if "://" in root else {"artifacts": Path(root)})
    for what, path in places.items():
        existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        free = shutil.disk_usage(existing).free / 1e9
        text = f"{free:.1f} GB free for {what} ({path})"
        if not os.access(existing, os.W_OK):
            yield failure("disk", f"{existing} cannot be written", "Set HPO_DATA and HPO_ARTIFACTS to other folders.")
        elif free < LITTLE_GB:
            yield warning("disk", text, "Checkpoints need space: free some, or lower checkpoints.max_megabytes.")
        else:
            yield ok("disk", text)
