"""How many trials fit in a device's memory: the free memory divided by that of one slot."""

from dataclasses import replace

import torch

from hpo.config import TrialConfig
from hpo.models import build_model
from hpo.training.dataset import ResidentData
from hpo.training.packed.compute.graphed_program import program_kind
from hpo.training.packed.compute.memory import free_bytes
from hpo.training.packed.compute.network import inputs_of
from hpo.training.packed.compute.program import member_of
from hpo.training.packed.layout.bucket import Bucket
from hpo.training.torch_compat import StorageLedger

SHARE = 0.4
"""Share of the free memory that lanes are planned for. Workspaces of kernels, tensors saved by autograd, evaluation,
and the snapshot for an epoch that fails take about as much again.
"""


def slots_that_fit(config: TrialConfig, bucket: Bucket, data: ResidentData, device: torch.device) -> int | None:
    """Return how many trials with such a config fit into one lane now; None where memory is no limit.

    This is an estimate: a lane that runs out of memory nevertheless is split into halves.
    """
    free = free_bytes(device)
    if free is None:
        return None
    return max(1, int(SHARE * free / slot_bytes(config, bucket, data, device)))


def slot_bytes(config: TrialConfig, bucket: Bucket, data: ResidentData, device: torch.device) -> int:
    """Return the bytes that one more slot with such a config adds to a program; nothing is allocated."""
    return _bytes_of(config, bucket, data, device, 2) - _bytes_of(config, bucket, data, device, 1)


def _bytes_of(config: TrialConfig, bucket: Bucket, data: ResidentData, device: torch.device, slots: int) -> int:
    # Tensors on torch's meta device have shapes but no memory.
    meta, config = torch.device("meta"), replace(config, class_weight="none")
    with meta:
        model = build_model(config.model, data.input_shape, data.classes)
    rows = inputs_of(config, torch.empty(data.train_x.shape, dtype=data.train_x.dtype, device=meta))
    members = [member_of(key, config, model, None, meta) for key in range(slots)]
    ledger = StorageLedger()
    with ledger:
        program_kind(device)(members, data, rows, bucket)
    return ledger.total_bytes
