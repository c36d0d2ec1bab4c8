"""How many trials fit in a device's memory: from what a slot of a lane takes and what is free."""

from dataclasses import replace

import torch

from hpo.config import TrialConfig
from hpo.models import build_model
from hpo.training.dataset import ResidentData
from hpo.training.packed.bucket import Bucket
from hpo.training.packed.cuda_graph import program_kind
from hpo.training.packed.network import inputs_of
from hpo.training.packed.program import member_of
from hpo.training.torch_compat import StorageLedger

SHARE = 0.4
"""Part of the free memory that lanes are planned for: kernels' workspaces, what autograd keeps, evaluation and
copies for an epoch that fails take about as much again.
"""


def slots_that_fit(config: TrialConfig, bucket: Bucket, data: ResidentData, device: torch.device) -> int | None:
    """Return how many trials like a config fit into one lane now; None where memory is no limit.

    Only a plan: where it was wrong a lane is halved.
    """
    free = free_bytes(device)
    if free is None:
        return None
    return max(1, int(SHARE * free / slot_bytes(config, bucket, data, device)))


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes that a GPU could still give; None for other devices."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return None  # a CPU's few slots are small beside what any machine has


def slot_bytes(config: TrialConfig, bucket: Bucket, data: ResidentData, device: torch.device) -> int:
    """Return the bytes that one more slot like a config adds to a program on a device; nothing is allocated."""
    return _bytes_of(config, bucket, data, device, 2) - _bytes_of(config, bucket, data, device, 1)


def _bytes_of(config: TrialConfig, bucket: Bucket, data: ResidentData, device: torch.device, slots: int) -> int:
    # On torch's meta device tensors have shapes and no memory.
    meta, config = torch.device("meta"), replace(config, class_weight="none")
    with meta:
        model = build_model(config.model, data.input_shape, data.classes)
    rows = inputs_of(config, torch.empty(data.train_x.shape, dtype=data.train_x.dtype, device=meta))
    members = [member_of(key, config, model, None, meta) for key in range(slots)]
    ledger = StorageLedger()
    with ledger:
        program_kind(device)(members, data, rows, bucket)
    return ledger.total_bytes
