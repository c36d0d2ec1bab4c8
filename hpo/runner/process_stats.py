"""What a worker takes of its machine: for people who watch."""

import contextlib
import sys


def process_stats() -> dict[str, int]:
    """Return memory in MB - the GPU's, where this process uses one - and how busy the GPU is, where that is known."""
    torch = sys.modules.get("torch")  # a worker that has not imported it does not train
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        found = {"memory_mb": round(torch.cuda.memory_reserved() / 1e6)}
        with contextlib.suppress(Exception):  # it wants a package that need not be there
            found["gpu_percent"] = int(torch.cuda.utilization())
        return found
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - read once a second
            return {"memory_mb": round(int(file.read().split()[1]) * 4096 / 1e6)}
    except OSError:
        return {}
