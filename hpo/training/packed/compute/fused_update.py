"""The optimizer step, clipping and averaging of all slots by two to three kernels of Triton.

It computes what `Clipping`, `VectorizedStep.apply` and `Averages.apply` do, on the same memory, except that gradients
stay as they are.
"""

import torch
from torch import Tensor

from hpo.training.packed.compute import fused_update_kernels as kernels
from hpo.training.packed.compute.averages import Averages
from hpo.training.packed.compute.fused_mlp import power_of_two
from hpo.training.packed.compute.optimizers import Clipping, VectorizedStep
from hpo.training.packed.layout.blocks import Blocks

BLOCK = 1024
"""Numbers of a slot that one program updates."""
PARTS = 32
"""Parts of each slot's gradient whose squares are summed apart."""


class FusedUpdate:
    """Updates the parameters of all slots by their gradients."""

    def __init__(
        self,
        params: Blocks,
        grads: Blocks,
        step: VectorizedStep,
        clip: Clipping | None,
        averages: Averages | None,
        *,
        table: Tensor,
        counter: Tensor,
    ) -> None:
        """`table` holds for each step and slot the coefficients that change, and how far the average moves."""
        self._params, self._grads = slab_of(params), slab_of(grads)
        self._first, self._second = slab_of(step.moments.first), slab_of(step.moments.second)
        self._step, self._clip, self._table, self._counter = step, clip, table, counter
        self._averages = slab_of(averages.params) if averages is not None else None
        self._running: list[tuple[Tensor, Tensor]] = []
        """Averages of running statistics and their values, in the order of memory: [2 L, S, W]."""
        if averages is not None:
            pairs = zip(averages.running, averages.network.running(), strict=True)
            self._running = [(average.transpose(0, 1), value.transpose(0, 1)) for average, value in pairs]
        self._sums = torch.zeros(len(self._params), PARTS, dtype=self._params.dtype, device=self._params.device)

    def __call__(self) -> None:
        """Take the step at the counter."""
        slots, numbers = self._params.shape
        if self._clip is not None:
            kernels.squares[slots, PARTS](self._grads, self._sums, NUMBERS=numbers, PARTS=PARTS, BLOCK=BLOCK)
        kernels.update[slots, -(-numbers // BLOCK)](
            self._params,
            self._grads,
            self._first,
            self._second,
            self._averages,
            self._step.constant,
            self._table,
            self._counter,
            self._clip.limits if self._clip is not None else None,
            self._sums,
            slots,
            numbers,
            BLOCK=BLOCK,
            PARTS=PARTS,
            CLIPS=self._clip is not None,
            AVERAGES=self._averages is not None,
        )
        for average, value in self._running:
            lines, _, width = average.shape
            grid, block = (lines * slots,), power_of_two(width)
            kernels.average[grid](average, value, self._table, self._counter, slots, width, BLOCK=block, num_warps=1)


def slab_of(blocks: Blocks) -> Tensor:
    """Return the slab of blocks of static shapes."""
    assert blocks.slab is not None
    return blocks.slab
