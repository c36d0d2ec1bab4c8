"""The free memory of a device, and how many rows are evaluated at once in it."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

EVALUATION_SHARE = 0.1
"""Share of the free memory that the activations of one layer may take in evaluation; several are held at once."""
CPU_NUMBERS = 2**20
"""On a CPU, approximate number of activations of one layer that are held at once: as many as fit in its cache."""
LEAST_ROWS = 64


def chunk_rows(numbers: int, x: Tensor) -> int:
    """Return how many of the rows x are to be evaluated at once, if a layer has so many activations per row."""
    return rows_in(free_bytes(x.device), numbers * x.element_size(), x.element_size())


def rows_in(free: int | None, row_bytes: int, number_bytes: int) -> int:
    """Return how many rows fit, given the free bytes, None on a CPU, and those of a row and of a number."""
    limit = CPU_NUMBERS * number_bytes if free is None else int(EVALUATION_SHARE * free)
    return max(LEAST_ROWS, limit // row_bytes)


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes that can still be allocated on a GPU; None for other devices."""
    if device.type == "cuda":
        segments = torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
        return int(torch.cuda.mem_get_info(device)[0]) + cached_bytes(segments, device)
    return None  # the few slots on a CPU take little of any machine's memory


def cached_bytes(segments: Iterable[Mapping[str, Any]], device: torch.device) -> int:
    """Return the bytes that torch holds of a device without using them, given torch's snapshot of its memory.

    What belongs to the pool of a CUDA graph does not count: only that graph can use it.
    """
    return sum(
        segment["total_size"] - segment["allocated_size"]
        for segment in segments
        if segment["device"] == device.index and tuple(segment["segment_pool_id"]) == (0, 0)
    )
