"""The devices of a run's workers, determined without importing torch into the supervisor."""

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hpo.interpreter import python

VISIBLE = "CUDA_VISIBLE_DEVICES"
_MIG = re.compile(r"\bUUID: (MIG-[^)\s]+)")


@dataclass(frozen=True)
class Accelerators:
    """The accelerators that this machine offers to this process."""

    gpus: int = 0
    """CUDA devices that torch counts."""
    mig: tuple[str, ...] = ()
    """Names of the instances of GPUs that are split (MIG). CUDA shows a process one of them only."""
    mps: bool = False
    """Whether there is a GPU of Apple, of which one process makes full use."""


def devices_for(device: str, workers: int | None, machine: Accelerators | None = None) -> list[str]:
    """Return a device for each worker: the requested one, or GPUs in turn, or CPU cores.

    Without a number of workers there is one per GPU or instance of one, or one per core this process may use. `machine`
    is what the machine has; it is looked up where it matters.
    """
    if device in ("auto", "cuda"):
        machine = machine or accelerators()
        if machine.mig:
            return [f"cuda:{machine.mig[i % len(machine.mig)]}" for i in range(workers or len(machine.mig))]
        if machine.gpus > 0:
            return [f"cuda:{i % machine.gpus}" for i in range(workers or machine.gpus)]
        if machine.mps and device == "auto":
            return ["mps"] * (workers or 1)
    if device in ("auto", "cpu"):
        return [device] * (workers or cores())
    return [device] * (workers or 1)


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def accelerators() -> Accelerators:
    """Return what torch can use; nothing, at once, where there is no sign of an accelerator."""
    if platform.system() == "Darwin":
        return Accelerators(mps=_asked("int(torch.backends.mps.is_available())") > 0)
    visible = os.environ.get(VISIBLE)
    if visible is not None and visible.strip() in ("", "-1", "NoDevFiles"):
        return Accelerators()
    nvidia = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()
    if not nvidia and shutil.which("nvidia-smi") is None:
        return Accelerators()
    gpus = _asked("torch.cuda.device_count()")
    return Accelerators(gpus, visible_mig(visible, _nvidia_smi_list()) if gpus else ())


def visible_mig(visible: str | None, listed: str) -> tuple[str, ...]:
    """Return the names of MIG instances to use, given CUDA_VISIBLE_DEVICES (None if unset) and `nvidia-smi -L`.

    Empty where whole GPUs are to be used.
    """
    if visible is not None:
        names = tuple(name.strip() for name in visible.split(","))
        return tuple(name for name in names if name.startswith("MIG-"))
    return tuple(_MIG.findall(listed))


def _asked(expression: str) -> int:
    """Return a number that torch tells in a process of its own; 0 if it cannot."""
    asked = subprocess.run(python("-c", f"import torch; print({expression})"), capture_output=True, text=True)
    return int(asked.stdout) if asked.stdout.strip().isdecimal() else 0


def _nvidia_smi_list() -> str:
    command = shutil.which("nvidia-smi")
    if command is None:
        return ""
    try:
        return subprocess.run([command, "-L"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
