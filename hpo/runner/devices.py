"""The devices of a run's workers, determined without importing torch into the supervisor."""

import os
import shutil
import subprocess
from pathlib import Path

from hpo.interpreter import python


def devices_for(device: str, workers: int | None) -> list[str]:
    """Return a device for each worker: the requested one, or GPUs in turn, or CPU cores.

    Without a number of workers there is one per GPU, or one per core this process may use.
    """
    if device in ("auto", "cuda"):
        gpus = gpu_count()
        if gpus > 0:
            return [f"cuda:{i % gpus}" for i in range(workers or gpus)]
    if device in ("auto", "cpu"):
        return [device] * (workers or cores())
    return [device] * (workers or 1)


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_count() -> int:
    """Return how many CUDA devices torch sees; 0 at once where there is no sign of one."""
    hints = (Path("/dev/nvidia0"), Path("/dev/dxg"))
    if not (any(path.exists() for path in hints) or shutil.which("nvidia-smi")):
        return 0
    code = "import torch; print(torch.cuda.device_count())"
    asked = subprocess.run(python("-c", code), capture_output=True, text=True, check=False)
    return int(asked.stdout) if asked.stdout.strip().isdecimal() else 0
