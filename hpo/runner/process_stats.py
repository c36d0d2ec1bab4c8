"""Memory and GPU load of a worker's process, for display."""

import contextlib
import sys


def process_stats() -> dict[str, int]:
    """Return memory in MB (of the GPU, if this process uses one) and the GPU's load in percent, where it is known."""
    torch = sys.modules.get("torch")  # a worker that has not imported it does not train
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        stats = {"memory_mb": round(torch.cuda.memory_reserved() / 1e6)}
        with contextlib.suppress(Exception):  # it needs a package that may be missing
            stats["gpu_percent"] = int(torch.cuda.utilization())
        return stats
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - read once a second
            return {"memory_mb": round(int(file.read().split()[1]) * 4096 / 1e6)}
    except OSError:
        return {}
