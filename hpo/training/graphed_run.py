"""A run whose training step is a CUDA graph."""

import torch
from torch import Tensor

from hpo.config import MLP, Adam, TrialConfig
from hpo.training.cuda_graph import StepGraph
from hpo.training.dataset import ResidentData
from hpo.training.devices import set_up_device
from hpo.training.engine import Checkpoint, EpochResult, Fault
from hpo.training.epoch import EpochSteps, Run
from hpo.training.optimizers import build_optimizer, optimizer_tensors


class GraphedRun(Run):
    """A run that replays its step as a graph.

    On a device without graphs, or if the capture fails, it calls the kernels of the same step one by one. So it does
    with a network of the user's own, whose code may do what must not be captured.
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
        self.step_graph = StepGraph(device, wanted=config.model.family != "python")

    @property
    def graph_failure(self) -> str:
        """Why the steps are taken one by one although a CUDA graph was wanted; empty otherwise."""
        return self.step_graph.failure

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer of the config, with the learning rate in the tensor that the graph reads."""
        return build_optimizer(self.config.optimizer, self.model.parameters(), self.device, self.lr)

    def start_epoch(self, epoch: int) -> EpochSteps:
        """Launch the training steps of an epoch (counted from 0) on the run's own stream, without waiting for them."""
        try:
            with self.step_graph.on_stream():
                return super().start_epoch(epoch)
        except torch.OutOfMemoryError:
            self.step_graph.join()  # its memory is free only once the steps before are done
            raise

    def is_done(self) -> bool:
        """Return whether `collect` would not wait for the steps of the epoch that was launched."""
        return self.step_graph.is_done()

    def collect(self) -> EpochResult | Fault:
        """Finish the epoch that was launched: wait for it, validate, and add it to the history.

        What it copies, such as the best weights, is complete for whatever the current stream computes afterwards.
        """
        try:
            with self.step_graph.on_stream():
                return super().collect()
        finally:
            self.step_graph.join()

    def training_scores(self, steps: EpochSteps) -> tuple[float, float]:
        """Return the training accuracy and mean loss of an epoch's steps; NaN if they diverged."""
        with self.step_graph.on_stream():
            return super().training_scores(steps)

    def train_steps(self, order: Tensor, first_step: int) -> Tensor | None:
        """Take a step for each row of `order`, int64 [steps, batch]; return all logits, [steps * batch, classes]."""
        self.order.copy_(order)
        self.lrs.copy_(torch.from_numpy(self.history.lrs(self.steps)))
        if self.average is not None:
            self.average_weights.copy_(torch.from_numpy(self.average.weights(first_step)))
        self.counter.zero_()
        self.step_graph.run(self, self.steps)
        return self.logits.flatten(0, 1)

    def step(self) -> None:
        """Take the step at the counter: this is what the graph records."""
        self.lr.copy_(self.lrs.index_select(0, self.counter).view(()))
        rows = self.order.index_select(0, self.counter).flatten()
        outputs = self.train_step(rows)
        if self.average is not None:
            self.average.update_by(self.average_weights.index_select(0, self.counter).view(()))
        self.logits.index_copy_(0, self.counter, outputs.unsqueeze(0))
        self.counter.add_(1)

    def changing(self) -> list[Tensor]:
        """Return what a step changes: weights, buffers, optimizer state, averages, the counter."""
        averages = self.average.tensors.values() if self.average is not None else ()
        state = optimizer_tensors(self.optimizer).values()
        return [*self.model.state_dict().values(), *state, *averages, self.counter]

    def before_capture(self) -> None:
        """Free the gradients, which the graph has in memory of its own."""
        self.optimizer.zero_grad()


def graph_failure_on(device: torch.device) -> str:
    """Train a small network on a device for two epochs; return why it took its steps without a graph, or nothing."""
    set_up_device(device)
    source = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 8, generator=source).to(device), torch.randint(0, 2, (64,), generator=source).to(device)
    data = ResidentData(x, y, x, y, torch.zeros(8, device=device), 2, (8,))
    model = MLP((16,), (0.2,), norm="batch")
    run = GraphedRun(TrialConfig("digits", model, Adam(1e-3), 8, 2, precision="fp32"), data, device)
    run.train_epoch()
    run.train_epoch()
    return run.graph_failure
