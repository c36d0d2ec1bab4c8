"""The CUDA paths as far as a CPU can show them: a graph that is wrong, or fails, costs time but no result.

`torch.cuda.CUDAGraph` needs a GPU, so `record` gives stand-ins here: one that does what a graph does, one that is empty
as a graph captured on another device is, one that forgets the optimizer, and errors.
"""

import dataclasses
import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from hpo.config import CNN, EMA, MLP, Adam, NoAverage, PythonNetwork, TrialConfig
from hpo.runner.worker import make_engine
from hpo.training import cuda_graph
from hpo.training.cuda_graph import StepGraph
from hpo.training.dataset import ResidentData
from hpo.training.devices import choose_device, resolve_precision, set_up_device, use_one_thread
from hpo.training.engine import DeviceUnusable, EpochResult
from hpo.training.epoch import Run
from hpo.training.graphed_run import GraphedRun, graph_failure_on
from hpo.training.packed.compute import memory
from hpo.training.packed.compute.graphed_program import GraphedProgram
from hpo.training.packed.compute.mlp import MLPs
from hpo.training.packed.compute.network import inputs_of
from hpo.training.packed.compute.program import Program, member_of
from hpo.training.packed.layout.bucket import bucket_of
from hpo.training.packed.scheduling import lane as lanes
from hpo.training.packed.scheduling.autotune import rounds_of
from hpo.training.packed.scheduling.engine import PackedEngine
from hpo.training.packed.scheduling.lane import Lane
from hpo.training.solo import SoloEngine
from tests.helpers.packing import mixed_cnns, random_rows
from tests.helpers.training import CPU, MLP_RUN

use_one_thread()
CUDA = torch.device("cuda", 1)
SHORT = dataclasses.replace(MLP_RUN, epochs=3, precision="fp32", average=EMA(0.5))
OF_USER = PythonNetwork("net.py:make", "0" * 64, {})


class Faithful:
    """What a graph is: a replay takes the steps."""

    def __init__(self, steps: cuda_graph.Steps, count: int) -> None:
        self.steps, self.count = steps, count

    def replay(self) -> None:
        cuda_graph.take(self.steps, self.count)


class Empty(Faithful):
    """What is captured on another device than that of the training."""

    def replay(self) -> None:
        pass


class FaithfulOnce(Faithful):
    """A graph of several steps that takes one."""

    def replay(self) -> None:
        self.steps.step()


class Forgetful(Faithful):
    """A graph in which the weights do not change."""

    def replay(self) -> None:
        changing = self.steps.changing()
        before = [tensor.clone() for tensor in changing[:-1]]
        super().replay()
        for tensor, value in zip(changing, before, strict=False):
            tensor.data.copy_(value)


Recorded = Callable[[cuda_graph.Steps, int], Any]
"""Stands in for `record`: takes the steps and how many of them a graph shall take."""


def fails(error: Exception) -> Recorded:
    def recorded(steps: cuda_graph.Steps, count: int) -> None:
        raise error

    return recorded


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Recorded], None]]:
    """Call it with what `record` shall give; the CPU then captures as a GPU does."""
    plain = StepGraph.__init__

    def wanted_everywhere(self: StepGraph, device: torch.device, *, wanted: bool = True) -> None:
        plain(self, device, wanted=wanted)
        self.capturable = wanted

    def begin(recorded: Recorded) -> None:
        monkeypatch.setattr(StepGraph, "__init__", wanted_everywhere)
        monkeypatch.setattr(cuda_graph, "record", lambda steps, count, stream, beside: recorded(steps, count))
        monkeypatch.setattr(lanes, "program_kind", lambda device: GraphedProgram)
        monkeypatch.setattr("hpo.training.packed.scheduling.engine.run_kind", lambda device: GraphedRun)
        monkeypatch.setattr("hpo.training.solo.run_kind", lambda device: GraphedRun)

    yield begin


def curve(engine: SoloEngine | PackedEngine, config: TrialConfig) -> tuple[list[EpochResult], str]:
    """Train a trial to its end; return its epochs, without their durations, and why it had no graph."""
    engine.admit(1, config)
    results: list[EpochResult] = []
    while not (results and results[-1].last):
        outcome = engine.step().get(1)
        if outcome is not None:
            assert isinstance(outcome, EpochResult), outcome
            results.append(dataclasses.replace(outcome, seconds=0.0))
    failure = engine.examine(1).graph_failure
    engine.evict(1)
    return results, failure


@pytest.fixture(scope="module")
def expected() -> dict[type, list[EpochResult]]:
    """The curve of steps taken one by one, by engine."""
    plain = GraphedRun(SHORT, SoloEngine(CPU).data(SHORT), CPU)
    solo = []
    for _ in range(SHORT.epochs):
        result = plain.train_epoch()
        assert isinstance(result, EpochResult)
        solo.append(dataclasses.replace(result, seconds=0.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes, "program_kind", lambda device: GraphedProgram)
        packed, _ = curve(PackedEngine(CPU), SHORT)
    return {SoloEngine: solo, PackedEngine: packed}


@pytest.mark.parametrize("engine", [SoloEngine, PackedEngine])
@pytest.mark.parametrize(
    ("recorded", "reason"),
    [
        (Faithful, ""),
        (Empty, "a replay of the graph differs from the plain step"),
        (Forgetful, "a replay of the graph differs from the plain step"),
        (fails(RuntimeError("operation not permitted\nwhen stream is capturing")), "operation not permitted"),
    ],
)
def test_whatever_becomes_of_the_graph_the_curve_is_that_of_the_plain_steps(
    captured: Callable[[Any], None],
    expected: dict[type, list[EpochResult]],
    caplog: pytest.LogCaptureFixture,
    engine: type[SoloEngine | PackedEngine],
    recorded: Any,
    reason: str,
) -> None:
    captured(recorded)
    got, failure = curve(engine(CPU), SHORT)
    assert got == expected[engine] and failure == reason
    assert (f"trained without a CUDA graph, kernel by kernel: {reason}" in caplog.text) == bool(reason)


def test_the_doctor_trains_a_graph_on_every_gpu(captured: Callable[[Any], None]) -> None:
    captured(Empty)
    assert graph_failure_on(CPU) == "a replay of the graph differs from the plain step"
    captured(Faithful)
    assert graph_failure_on(CPU) == ""


class Counted:
    """Steps that add one to their counter, and graphs of them that note each replay."""

    def __init__(self) -> None:
        self.counter = torch.zeros(1, dtype=torch.int64)
        self.replayed: list[int] = []

    def step(self) -> None:
        self.counter.add_(1)

    def changing(self) -> list[torch.Tensor]:
        return [self.counter]

    def before_capture(self) -> None:
        pass

    def graph(self, steps: cuda_graph.Steps, count: int) -> Faithful:
        return Noted(self, count)


class Noted(Faithful):
    steps: Counted

    def replay(self) -> None:
        self.steps.replayed.append(self.count)
        super().replay()


@pytest.mark.parametrize(("count", "replays"), [(1, 1), (7, 1), (8, 1), (9, 1), (35, 5), (281, 21)])
def test_an_epoch_is_few_replays_and_exactly_its_steps(
    captured: Callable[[Any], None], count: int, replays: int
) -> None:
    steps = Counted()
    captured(steps.graph)
    graph = StepGraph(CPU)
    for epoch in range(4):
        graph.run(steps, count)
        assert int(steps.counter) == (epoch + 1) * count
    steps.replayed.clear()
    graph.run(steps, count)
    assert len(steps.replayed) == replays and sum(steps.replayed) == count
    assert max(steps.replayed) <= cuda_graph.MOST_STEPS


def test_an_epoch_of_another_number_of_steps_is_replayed_by_the_same_graphs(captured: Callable[[Any], None]) -> None:
    steps = Counted()
    captured(steps.graph)
    graph, taken = StepGraph(CPU), 0
    for count in (35, 9, 1, 8, 7, 36, 35):
        graph.run(steps, count)
        taken += count
        assert int(steps.counter) == taken and set(graph.graphs) == {1, 7}
    steps.replayed.clear()
    graph.run(steps, 17)
    assert steps.replayed == [7, 7, 1, 1, 1]


def test_without_a_graph_of_several_steps_each_is_replayed(
    captured: Callable[[Any], None], expected: dict[type, list[EpochResult]], caplog: pytest.LogCaptureFixture
) -> None:
    captured(FaithfulOnce)
    got, failure = curve(SoloEngine(CPU), SHORT)
    assert got == expected[SoloEngine] and failure == ""
    assert "trained with a CUDA graph of one step, not of" in caplog.text


def test_an_epoch_of_one_step_is_captured_in_the_next_epoch(captured: Callable[[Any], None]) -> None:
    captured(Faithful)
    run = GraphedRun(dataclasses.replace(SHORT, batch_size=10**6), SoloEngine(CPU).data(SHORT), CPU)
    run.train_epoch()
    assert not run.step_graph.graphs
    run.train_epoch()
    assert run.step_graph.graphs


def test_memory_that_ends_in_a_capture_is_no_lack_of_a_graph(captured: Callable[[Any], None]) -> None:
    captured(fails(torch.OutOfMemoryError("no memory left")))
    engine = SoloEngine(CPU)
    engine.admit(1, SHORT)
    fault = engine.step()[1]
    assert not isinstance(fault, EpochResult) and fault.kind == "oom"


def test_a_lane_whose_capture_runs_out_of_memory_is_halved(captured: Callable[[Any], None]) -> None:
    def recorded(steps: cuda_graph.Steps, count: int) -> Faithful:
        if isinstance(steps, Program) and steps.layout.slots > 1:
            raise torch.OutOfMemoryError("no memory left")
        return Faithful(steps, count)

    captured(recorded)
    engine = PackedEngine(CPU)
    for key in range(2):
        engine.admit(key, dataclasses.replace(SHORT, seed=key))
    outcomes: dict[int, object] = {}
    while len(outcomes) < 2:
        outcomes |= engine.step()
    assert all(isinstance(outcome, EpochResult) and outcome.epoch == 1 for outcome in outcomes.values())
    assert [len(unit.trials()) for unit in engine.units] == [1, 1]


@pytest.mark.parametrize("kind", [SoloEngine, PackedEngine])
def test_a_device_that_a_capture_has_left_unusable_ends_the_worker(
    captured: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, kind: type[SoloEngine | PackedEngine]
) -> None:
    captured(fails(RuntimeError("capture failed")))
    monkeypatch.setattr(cuda_graph, "is_usable", lambda device: False)
    engine = kind(CPU)
    engine.admit(1, SHORT)
    with pytest.raises(DeviceUnusable, match=r"must be usable after a CUDA graph failed \(capture failed\), got"):
        engine.step()


def test_without_graphs_nothing_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: object())
    assert StepGraph(CUDA).capturable and not StepGraph(CUDA, wanted=False).capturable
    monkeypatch.setenv("HPO_CUDA_GRAPHS", "0")
    assert not StepGraph(CUDA).capturable


def test_a_network_of_the_users_own_is_not_captured(
    captured: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    captured(Faithful)
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    monkeypatch.setattr("hpo.training.state.build_model", lambda *args, **kwargs: flat)
    run = GraphedRun(dataclasses.replace(SHORT, model=OF_USER), SoloEngine(CPU).data(SHORT), CPU)
    run.train_epoch()
    assert not run.step_graph.graphs and not run.graph_failure


def test_best_weights_are_complete_before_others_read_them() -> None:
    """`collect` makes the current stream wait after the last copy, not before it."""
    run = GraphedRun(dataclasses.replace(SHORT, best_weights=True), SoloEngine(CPU).data(SHORT), CPU)
    joined: list[bool] = []
    run.step_graph.join = lambda: joined.append(bool(run.best))  # type: ignore[method-assign]
    run.launch()
    assert not joined
    run.collect()
    assert joined[-1]


def programs() -> Iterator[tuple[str, Callable[[], object]]]:
    """Everything that holds a device's memory."""
    flat, images = random_rows(20), random_rows(2, 9, 8)
    for name, data, configs in (
        ("mlp", flat, [dataclasses.replace(MLP_RUN, model=MLP((8, 8), (0.2, 0.2), norm="batch"))] * 2),
        ("cnn", images, mixed_cnns("two stages, flat, dense", True, 2)),
    ):
        for kind in (Program, GraphedProgram):
            yield f"{name} {kind.__name__}", lambda d=data, c=configs, k=kind: program_of(k, c, d)  # type: ignore[misc]
        for run in (Run, GraphedRun):
            yield f"{name} {run.__name__}", lambda d=data, c=configs, k=run: k(c[0], d, CPU)  # type: ignore[misc]


def program_of(kind: type[Program], configs: Sequence[TrialConfig], data: ResidentData) -> Program:
    models = [Run(config, data, CPU).model for config in configs]
    members = [member_of(key, c, m, None, CPU) for key, (c, m) in enumerate(zip(configs, models, strict=True))]
    return kind(members, data, inputs_of(configs[0], data.train_x), bucket_of(configs[0], data))


@pytest.mark.parametrize(("name", "make"), list(programs()), ids=lambda value: value if isinstance(value, str) else "")
def test_memory_is_free_as_soon_as_nobody_holds_it(name: str, make: Callable[[], Any]) -> None:
    """No cycle: those keep a GPU's memory until Python happens to look for them."""
    held = make()
    held.train_epoch()
    alive = weakref.ref(held)
    gc.disable()
    try:
        del held
        assert alive() is None, name
    finally:
        gc.enable()


def test_a_lane_is_halved_once_the_failed_steps_tensors_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[weakref.ref[torch.Tensor]] = []
    plain, split, alive = MLPs.compute_gradients, Lane.split, []

    def compute_gradients(self: MLPs, data: torch.Tensor, rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        large = torch.zeros(1000)
        if self.layout.slots > 1:
            kept.append(weakref.ref(large))
            raise torch.OutOfMemoryError("no memory left")
        return plain(self, data, rows, labels)

    def noted(self: Lane) -> Lane:
        alive.append(kept[-1]() is not None)
        return split(self)

    monkeypatch.setattr(MLPs, "compute_gradients", compute_gradients)
    monkeypatch.setattr(Lane, "split", noted)
    engine = PackedEngine(CPU)
    for key in range(2):
        engine.admit(key, dataclasses.replace(SHORT, seed=key, average=NoAverage()))
    engine.step()
    assert alive == [False]


def test_memory_in_the_pool_of_a_graph_is_not_free() -> None:
    def segment(device: int, pool: tuple[int, int], total: int, used: int) -> dict[str, Any]:
        return {"device": device, "segment_pool_id": pool, "total_size": total, "allocated_size": used}

    segments = [segment(1, (0, 0), 100, 30), segment(1, (0, 7), 1000, 0), segment(0, (0, 0), 500, 0)]
    assert memory.cached_bytes(segments, CUDA) == 70


def test_an_engine_makes_its_gpu_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("solo", "packed", "auto"):
        make_engine(name, "cuda:1")
    assert current == [CUDA] * 3


def test_float32_is_float32_and_bf16_only_what_was_measured() -> None:
    cudnn: Any = torch.backends.cudnn
    cudnn.conv.fp32_precision = "tf32"
    set_up_device(CPU)
    assert "tf32" not in (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision)
    assert not cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    wide = CNN((64, 128), (0.0, 0.0))
    assert resolve_precision("auto", wide, (3, 32, 32), 512, CUDA) == "fp32"
    assert resolve_precision("bf16", wide, (3, 32, 32), 512, CUDA) == "bf16"


def test_a_race_on_a_gpu_times_two_hundred_steps() -> None:
    for rows in (1, 7, 50, 10_000):
        steps, rounds = rounds_of(CUDA, rows)
        assert steps <= rows and steps * rounds >= 200
    assert rounds_of(CPU, 100) == (6, 4)


def test_an_instance_of_a_gpu_is_the_only_one_that_its_process_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")
    seen: list[str] = []

    def device_count() -> int:
        import os

        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        return 1

    monkeypatch.setattr(torch.cuda, "device_count", device_count)
    assert choose_device("cuda:MIG-b") == torch.device("cuda", 0) and seen == ["MIG-b"]


def test_the_warm_up_takes_no_step_of_its_own(captured: Callable[[Any], None]) -> None:
    captured(Faithful)
    run = GraphedRun(dataclasses.replace(SHORT, optimizer=Adam(1e-3)), SoloEngine(CPU).data(SHORT), CPU)
    run.train_epoch()
    steps = {int(value) for name, value in run.checkpoint().tensors.items() if name.endswith(".step")}
    assert steps == {run.steps}, "the warm-up and the comparison take no step of their own"
