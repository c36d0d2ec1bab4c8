"""A training step as a CUDA graph.

The step of a small network is dozens of kernels of a few microseconds each: launching them takes longer than running
them. Recorded once and replayed as a graph, a step is one launch, and several steps are no more. Everything that
changes from step to step - the rows, the learning rate, the dropout masks - is therefore read on the device, at a step
counter that the graph advances.

Warm-up, capture and replay happen on one stream that belongs to the graph alone: torch 2.11 keys the workspaces of
cuBLAS by stream, so graphs that were captured on a common stream would share one while they are replayed concurrently.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from hpo.interpreter import collector_paused
from hpo.training.engine import DeviceUnusable

WARM_UP_STEPS = 3
"""Steps taken one by one before the capture, so that lazy allocations are done (the number that PyTorch uses)."""
MOST_STEPS = 16
"""Most steps that one graph takes. Recording a step takes as long as taking it plainly, and with 16 steps the time
between two replays is already a small part of that of their kernels."""
TOLERANCE = 0.05
"""Largest share of a change by which a replay may differ from the plain steps: sums on a GPU have no fixed order,
and where a gradient is rounding alone, optimizers that divide by its size make full steps of it."""
SWITCH = "HPO_CUDA_GRAPHS"
"""Environment variable; `0` trains kernel by kernel."""

_log = logging.getLogger(__name__)


class Steps(Protocol):
    """A training whose step reads everything that changes between steps from memory."""

    def step(self) -> None:
        """Take the step at the counter, and advance the counter."""
        ...

    def changing(self) -> list[Tensor]:
        """Return what a step changes, counter included; complete only after a first step."""
        ...

    def before_capture(self) -> None:
        """Free what a capture would otherwise free."""
        ...


class StepGraph:
    """Takes the steps of a training as replays of a graph, where that is possible, else one by one."""

    def __init__(self, device: torch.device, *, wanted: bool = True) -> None:
        """`wanted` is False for a step that must not be captured."""
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        """Graphs by their number of steps: of one step, and of several."""
        self.capturable = wanted and self.stream is not None and os.environ.get(SWITCH) != "0"
        self.failure = ""
        """Why the steps are taken one by one although a graph was wanted; empty otherwise."""
        self._sizes: list[int] = []
        """Numbers of steps to record; empty until the first step is taken."""

    @contextlib.contextmanager
    def on_stream(self) -> Iterator[None]:
        """Have what is launched inside computed on the graph's stream, after what the current stream computes now."""
        if self.stream is None:
            yield
            return
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            yield

    def join(self) -> None:
        """Make the current stream wait for all that was launched on the graph's."""
        if self.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def is_done(self) -> bool:
        """Return whether all that was launched on the graph's stream is computed, or has failed."""
        try:
            return self.stream is None or bool(self.stream.query())
        except RuntimeError:  # which whoever waits for the results gets too
            return True

    def run(self, steps: Steps, count: int) -> None:
        """Take `count` steps; to be called on the graph's stream.

        Raises: torch.OutOfMemoryError; DeviceUnusable if a failed capture has left the device unusable.
        """
        done = 0
        if self.capturable and not self._sizes:
            steps.step()  # makes the optimizer's state
            done, self._sizes = 1, sorted({1, steps_per_replay(count)})
        for size in self._sizes:
            if self.capturable and size not in self.graphs and done + size <= count:
                self._capture(steps, size)
                done += size
        for size in sorted(self.graphs, reverse=True):
            for _ in range((count - done) // size):
                self.graphs[size].replay()
                done += size
        take(steps, count - done)

    def _capture(self, steps: Steps, count: int) -> None:
        """Take steps, and again as a replay of their graph; keep the graph if both did the same."""
        changing = steps.changing()
        before = [tensor.clone() for tensor in changing]
        take(steps, count)
        after = [tensor.clone() for tensor in changing]
        for _ in range(WARM_UP_STEPS - 2):
            copy(changing, before)
            steps.step()
        copy(changing, before)
        steps.before_capture()
        graph, reason = None, ""
        try:
            graph = record(steps, count, self.stream, self.graphs.get(1))
        except torch.OutOfMemoryError:
            self._check_usable()
            raise
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
        if graph is None:
            self._check_usable(reason)
        else:
            graph.replay()
            if not _did_the_same(before, after, changing):
                graph, reason = None, "a replay of the graph differs from the plain step"
        if graph is not None:
            self.graphs[count] = graph
            return
        copy(changing, after)
        self.capturable = False
        if self.graphs:
            _log.warning("trained with a CUDA graph of one step, not of %d: %s", count, reason)
        else:
            self.failure = reason
            _log.warning("trained without a CUDA graph, kernel by kernel: %s", reason)

    def _check_usable(self, reason: str = "out of memory") -> None:
        if not is_usable(self.device):
            rule = f"{self.device}: must be usable after a CUDA graph failed ({reason})"
            raise DeviceUnusable(f"{rule}, got an error. Start again with {SWITCH}=0.")


def steps_per_replay(count: int) -> int:
    """Return how many steps one graph should take, so that `count` of them are the fewest replays.

    What is left over is replayed step by step.
    """
    return min(range(1, min(count, MOST_STEPS) + 1), key=lambda size: count // size + count % size)


def take(steps: Steps, count: int) -> None:
    """Take `count` steps, kernel by kernel."""
    for _ in range(count):
        steps.step()


def record(
    steps: Steps, count: int, stream: torch.cuda.Stream | None, beside: torch.cuda.CUDAGraph | None
) -> torch.cuda.CUDAGraph:
    """Record `count` steps on a stream, which is the current one, as a graph, without taking them.

    The graph `beside` is replayed on the same stream, so both use the same memory for what a step computes meanwhile.

    Not `torch.cuda.graph`: after a failure that leaves its own stream the current one in torch 2.11, and it always
    waits for the whole device. Raises: RuntimeError.
    """
    assert stream is not None
    graph = torch.cuda.CUDAGraph()
    pool = None if beside is None else beside.pool()
    with collector_paused():  # what is collected in a capture could free another graph's memory
        stream.synchronize()
        graph.capture_begin(pool, capture_error_mode="thread_local")
        try:
            take(steps, count)
        except BaseException:
            with contextlib.suppress(RuntimeError):  # that of the step says more
                graph.capture_end()
            raise
        graph.capture_end()
    return graph


def is_usable(device: torch.device) -> bool:
    """Return whether a device computes and frees memory, as a CUDA device does not after some failed captures."""
    if device.type != "cuda":
        return True
    try:
        if torch.cuda.is_current_stream_capturing():
            return False
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        return bool(torch.ones(1, device=device).add_(1).item() == 2)
    except RuntimeError:
        return False


def copy(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Give tensors the values of others."""
    with torch.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)


def _did_the_same(before: Sequence[Tensor], plain: Sequence[Tensor], replayed: Sequence[Tensor]) -> bool:
    """Return whether replayed steps changed tensors as the plain ones did, but for rounding."""
    moved = differing = 0.0
    for start, one, other in zip(before, plain, replayed, strict=True):
        if not start.is_floating_point():
            if not torch.equal(one, other):
                return False
            continue
        same = (one == other) | (one.isnan() & other.isnan())
        change = torch.where(one == start, 0, one - start).nan_to_num().abs().sum()
        moved += change.item()
        differing += torch.where(same, 0, one - other).abs().sum().item()
    return differing <= TOLERANCE * moved
