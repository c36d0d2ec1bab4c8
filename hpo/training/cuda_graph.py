"""A run whose whole training step is one CUDA graph.

The step of a small network is dozens of kernels of a few microseconds each: launching them takes longer than running
them. Recorded once and replayed as a graph, a step is one launch. Everything that changes from step to step - the rows,
the learning rate, the dropout masks - is therefore read on the device, at a step counter that the graph advances.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from hpo.config import TrialConfig
from hpo.training.dataset import ResidentData
from hpo.training.engine import Checkpoint
from hpo.training.epoch import Run
from hpo.training.optimizers import build_optimizer

WARM_UP_STEPS = 3
"""Steps taken one by one before the capture, so that lazy allocations are done (the number that PyTorch uses)."""


class GraphedRun(Run):
    """A run that replays its step as a graph.

    On a device without graphs, or if the capture fails, it calls the kernels of the same step one by one.
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
        """Number of the step within the epoch."""
        for dropout in self.dropouts:
            dropout.counter = self.counter
        self.order = torch.zeros(self.steps, self.batch_size, dtype=torch.int64, device=device)
        self.lrs = torch.zeros(self.steps, device=device)
        self.average_weights = torch.zeros(self.steps, device=device)
        """How far the averages move in each step of the epoch."""
        self.logits = torch.zeros(self.steps, self.batch_size, data.classes, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.capturable = device.type == "cuda"

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer of the config, with the learning rate in the tensor that the graph reads."""
        return build_optimizer(self.config.optimizer, self.model.parameters(), self.device, self.lr)

    def train_steps(self, order: Tensor, first_step: int) -> Tensor | None:
        """Take a step for each row of `order`, int64 [steps, batch]; return all logits, [steps * batch, classes]."""
        self.order.copy_(order)
        self.lrs.copy_(torch.tensor(self.history.lrs(self.steps)))
        if self.average is not None:
            self.average_weights.copy_(torch.tensor(self.average.weights(first_step)))
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
        if self.average is not None:
            self.average.update_by(self.average_weights.index_select(0, self.counter).view(()))
        self.logits.index_copy_(0, self.counter, outputs.unsqueeze(0))
        self.counter.add_(1)

    def _warm_up_and_record(self) -> int:
        """Take the first steps on a side stream, then record a graph; return how many steps were taken."""
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
    """Record a step as a graph, without taking it, and return the graph; None, with a warning, where that fails."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            step()
    except RuntimeError as error:
        logging.getLogger(__name__).warning("trained without a CUDA graph, kernel by kernel: %s", error)
        return None
    return graph
