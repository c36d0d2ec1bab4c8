"""Where the workers of a run are to be: `--on` read, checked, and made a launcher and a device for each worker."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy.engine import URL

from hpo.errors import UsageError
from hpo.runner.devices import devices_for
from hpo.runner.launchers.contract import Launcher, Resources
from hpo.runner.launchers.local import LocalLauncher

LOCAL, RAY, SLURM = "local", "ray", "slurm"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a user asks for."""

    on: str = LOCAL
    """local, ray, ray://HOST:PORT or slurm."""
    workers: int | None = None
    """None for as many as the place has room for."""
    device: str = "auto"
    cpus: float | None = None
    """CPU cores of each worker, elsewhere than on this machine; None for 1."""
    gpus: float | None = None
    """GPUs of each worker; None for none, or for 1 with a CUDA device."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Options of the place."""


@dataclass(frozen=True)
class Plan:
    """Workers that can be started."""

    launcher: Launcher
    devices: list[str]
    """A device for each worker."""


def plan_workers(wanted: Wanted, url: URL, *, say: Callable[[str], None] = lambda text: None) -> Plan:
    """Return how the workers that a user asks for can be started on a store; all that can be checked before is checked.

    Imports Ray or submitit if the workers are to run there. `say` takes a line for the user. Raises: UsageError.
    """
    kind, slashes, address = wanted.on.partition("://")
    if wanted.workers is not None and wanted.workers < 1:
        raise UsageError(f"workers: must be at least 1, got {wanted.workers}.")
    if kind not in (LOCAL, RAY, SLURM) or (slashes and (kind != RAY or not address)):
        raise UsageError(f'on: must be local, ray, ray://HOST:PORT or slurm, got "{wanted.on}".')
    if kind == LOCAL:
        return _on_this_machine(wanted)
    resources = _resources(wanted)
    device = "cpu" if wanted.device == "auto" and not resources.gpus else wanted.device
    if kind == RAY:
        from hpo.runner.launchers.ray_connection import ray_launcher

        launcher, count = ray_launcher(address, resources, wanted.options, url, say=say)
        return Plan(launcher, [device] * (wanted.workers or count))
    if wanted.workers is None:
        raise UsageError("workers: is required with Slurm, got none. Say how many jobs to submit: --workers N")
    from hpo.runner.launchers.slurm import SlurmLauncher

    return Plan(SlurmLauncher(resources, wanted.options, url), [device] * wanted.workers)


def _on_this_machine(wanted: Wanted) -> Plan:
    for name, value in (("cpus", wanted.cpus), ("gpus", wanted.gpus), ("on_option", wanted.options or None)):
        if value is not None:
            raise UsageError(f"{name}: goes with --on ray or --on slurm, got --on local. Leave it out.")
    return Plan(LocalLauncher(), devices_for(wanted.device, wanted.workers))


def _resources(wanted: Wanted) -> Resources:
    """Return the resources of each worker. Raises: UsageError."""
    gpus = wanted.gpus if wanted.gpus is not None else float(wanted.device.startswith("cuda"))
    resources = Resources(1.0 if wanted.cpus is None else wanted.cpus, gpus)
    if not 0 < resources.cpus < float("inf"):
        raise UsageError(f"cpus: must be above 0, got {resources.cpus:g}.")
    if not 0 <= resources.gpus < float("inf"):
        raise UsageError(f"gpus: must be at least 0, got {resources.gpus:g}.")
    if resources.gpus > 1 or wanted.device.startswith("cuda:"):
        raise UsageError(
            f"gpus: a worker trains on one GPU at most, the first that it is given, got {resources.gpus:g} and device "
            f"{wanted.device}. Use --device cuda and --gpus 1, or a part."
        )
    if wanted.device == "cpu" and resources.gpus:
        raise UsageError(f"gpus: goes with a CUDA device, got {resources.gpus:g} and device cpu. Leave it out.")
    return resources
