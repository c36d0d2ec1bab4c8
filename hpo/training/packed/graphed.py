"""A program whose whole step, for all its members, is one CUDA graph: gather, forward, backward, optimizer.

As in `hpo.training.graphed`, what changes from step to step is read on the device by a counter that the graph
advances: rows, labels, dropout bytes, and every slot's eleven optimizer coefficients, in which its rate, its
schedule and its own count of steps are already at work. The graph is recorded once for a set of members.

Not yet run on a GPU: the tests take the same counted steps one by one on a CPU.
"""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.training.dataset import ResidentData
from hpo.training.graphed import WARM_UP_STEPS
from hpo.training.packed.optimizers import COEFFICIENTS, VectorizedStep, coefficients
from hpo.training.packed.program import Member, Program


class GraphedProgram(Program):
    """A program that replays its step on a stream of its own; where that fails, it takes it kernel by kernel."""

    whole_epoch = True

    def __init__(self, members: Sequence[Member], data: ResidentData, rows: Tensor, batch: int) -> None:
        super().__init__(members, data, rows, batch)
        self.vectorized = VectorizedStep(self.network.params, self.network.grads, self.moments)
        self.counter = torch.zeros(1, dtype=torch.int64, device=self.device)
        """The step within the epoch."""
        self.table = torch.zeros(self.steps, self.layout.slots, len(COEFFICIENTS), dtype=rows.dtype, device=self.device)
        self.capturable = self.device.type == "cuda"
        self.graph: torch.cuda.CUDAGraph | None = None
        self.stream = torch.cuda.Stream(self.device) if self.capturable else None  # type: ignore[no-untyped-call]

    def train_epoch(self) -> None:
        if self.stream is None:
            self._train_epoch()
            return
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            self._train_epoch()

    def join(self) -> None:
        if self.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def _train_epoch(self) -> None:
        lrs = self.start_epoch()
        self.table.copy_(self._coefficients(lrs))
        self.counter.zero_()
        done = self._warm_up_and_capture() if self.capturable and self.graph is None else 0
        for _ in range(done, self.steps):
            if self.graph is not None:
                self.graph.replay()
            else:
                self._step()
        self.moments.steps = [step + self.steps for step in self.moments.steps]

    def _coefficients(self, lrs: Sequence[Sequence[float]]) -> Tensor:
        """Return each step's and slot's coefficients: float64 [steps, S, 11]."""
        taken = list(zip(self.moments.configs, self.moments.steps, strict=True))
        table = [
            [coefficients(config, lr, done + step + 1) for (config, done), lr in zip(taken, rates, strict=True)]
            for step, rates in enumerate(lrs)
        ]
        return torch.tensor(table, dtype=torch.float64).to(self.table.dtype)

    def _step(self) -> None:
        for dropout in self.dropouts:
            dropout.set_mask(self._now(dropout.bytes))
        rows, labels = self._now(self.order), self._now(self.labels)
        torch.index_select(self.rows, 0, rows.flatten(), out=self.x.view(-1, self.layout.features))
        logits = self.network.learn(self.x, labels)
        self.logits.index_copy_(0, self.counter, logits.unsqueeze(0))
        if self.clip is not None:
            self.clip()
        self.vectorized.take(self._now(self.table))
        self.counter.add_(1)

    def _now(self, tensor: Tensor) -> Tensor:
        """Return what a tensor holds for the step that the counter tells."""
        return tensor.index_select(0, self.counter).squeeze(0)

    def _warm_up_and_capture(self) -> int:
        """Take the first steps one by one, then record one; return how many were taken."""
        steps = min(WARM_UP_STEPS, self.steps)
        for _ in range(steps):
            self._step()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self._step()
            self.graph = graph
        except RuntimeError as error:
            self.capturable = False
            logging.getLogger(__name__).warning("step by step, without a CUDA graph: %s", error)
        return steps


def program_kind(device: torch.device) -> type[Program]:
    """Return the kind of program that is fastest on a device."""
    return GraphedProgram if device.type == "cuda" else Program
