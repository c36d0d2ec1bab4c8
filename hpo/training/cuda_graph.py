"""A run whose whole training step is one CUDA graph.

A small network's step is dozens of kernels of a few microseconds each: launching them costs more than running
them. Recorded once and replayed as a graph, a step costs one launch. Everything that changes from step to
step - which rows, the learning rate, the dropout masks - is therefore read on the device, by a step counter
that the graph itself advances.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from hpo.config import TrialConfig
from hpo.training.dataset import ResidentData
from hpo.training.engine import Checkpoint
from hpo.training.optimizers import build_optimizer
from hpo.training.run import Run

WARM_UP_STEPS = 3
"""Steps taken one by one before the capture, so that every lazy allocation is behind (PyTorch's own number)."""


class GraphedRun(Run):
    """A run that replays its step; on a device without graphs, or if the capture fails, it takes the same
    step kernel by kernel.
    """

    def __init__(
        self,
        config: TrialConfig,
        data: ResidentData,
        device: torch.device,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.lr = torch.tensor(config.optimizer.lr, dtype=torch.float32, device=device)
        super().__init__(config, data, device, checkpoint)
        self.counter = torch.zeros(1, dtype=torch.int64, device=device)
        """The step within the epoch."""
        for dropout in self.dropouts:
            dropout.counter = self.counter
        self.order = torch.zeros(self.steps, self.batch_size, dtype=torch.int64, device=device)
        self.lrs = torch.zeros(self.steps, device=device)
        self.logits = torch.zeros(self.steps, self.batch_size, data.classes, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.capturable = device.type == "cuda"

    def build_optimizer(self) -> torch.optim.Optimizer:
        return build_optimizer(self.config.optimizer, self.model.parameters(), self.device, self.lr)

    def train_steps(self, order: Tensor, first_step: int) -> Tensor | None:
        self.order.copy_(order)
        self.lrs.copy_(torch.tensor(self.course.lrs(self.steps)))
        self.counter.zero_()
        done = 0
        if self.capturable and self.graph is None:
            done = self._warm_up_and_record()
        for _ in range(done, self.steps):
            if self.graph is not None:
                self.graph.replay()
            else:
                self._step()
        return self.logits.flatten(0, 1)

    def _step(self) -> None:
        self.lr.copy_(self.lrs.index_select(0, self.counter).view(()))
        rows = self.order.index_select(0, self.counter).flatten()
        self.optimizer.zero_grad()
        outputs = self.forward_backward(rows)
        self.update()
        self.logits.index_copy_(0, self.counter, outputs.unsqueeze(0))
        self.counter.add_(1)

    def _warm_up_and_record(self) -> int:
        """Take the first steps on a side stream, then record one; return how many were taken."""
        steps = min(WARM_UP_STEPS, self.steps)
        side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(steps):
                self._step()
        torch.cuda.current_stream(self.device).wait_stream(side)
        self.optimizer.zero_grad()
        self.graph = record(self._step)
        self.capturable = self.graph is not None
        return steps


def record(step: Callable[[], None], stream: torch.cuda.Stream | None = None) -> torch.cuda.CUDAGraph | None:
    """Return a graph of a step, which is recorded, not taken; None, with a warning, where that fails."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            step()
    except RuntimeError as error:
        logging.getLogger(__name__).warning("step by step, without a CUDA graph: %s", error)
        return None
    return graph
