"""Places of a recorded program: newcomers take them, and the step stays the same calls on the same memory."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from hpo.config import EMA, MLP, NoAverage, PythonNetwork, TrialConfig
from hpo.training.dataset import ResidentData
from hpo.training.devices import use_one_thread
from hpo.training.epoch import Run
from hpo.training.packed.compute.graphed_program import GraphedProgram
from hpo.training.packed.scheduling import lane as lanes
from hpo.training.packed.scheduling.lane import Lane
from hpo.training.torch_compat import TorchDispatchMode, tree_leaves
from tests.helpers.packing import (
    CPU,
    FEATURES,
    OPTIMIZERS,
    admit,
    alone,
    assert_same_curve,
    assert_same_state,
    average_of,
    lane_of,
    mixed_cnns,
    mixed_mlps,
    random_images,
    random_rows,
    train,
)

use_one_thread()
FAMILIES = ("mlp", "cnn")
EPOCHS = 4


@pytest.fixture
def graphed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lanes take their steps as a graph would, in fp64."""
    monkeypatch.setattr(lanes, "program_kind", lambda device: GraphedProgram)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def some(family: str) -> tuple[ResidentData, list[TrialConfig]]:
    """Rows of a family, and ten trials on them."""
    if family == "mlp":
        data, configs = random_rows(FEATURES), mixed_mlps(dropout=True)[:10]
    else:
        data, configs = random_images(), mixed_cnns("two stages, flat, dense", True, 10)
    return data, [dataclasses.replace(config, epochs=EPOCHS) for config in configs]


def narrower(config: TrialConfig, seed: int) -> TrialConfig:
    """Return a trial that a trial's slot can hold, and that differs from it in all else."""
    network = config.model
    assert not isinstance(network, PythonNetwork)
    rates = tuple(0.25 if rate > 0 else 0.0 for rate in network.dropout)
    changed = {"norm": "none" if network.norm == "batch" else "batch", "dropout": rates}
    sizes = {"widths": tuple(max(1, w - 2) for w in network.widths)} if isinstance(network, MLP) else {
        "channels": tuple(c - 1 for c in network.channels), "head_width": network.head_width - 3
    }  # fmt: skip
    return dataclasses.replace(
        config,
        model=dataclasses.replace(network, **changed, **sizes),  # type: ignore[arg-type]
        optimizer=OPTIMIZERS[(seed + 1) % 6],
        label_smoothing=0.2 - config.label_smoothing,
        class_weight="balanced" if config.class_weight == "none" else "none",
        clip_norm=None if config.clip_norm else 0.7,
        average=average_of(seed + 1),
        seed=100 + seed,
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_newcomers_train_in_the_places_of_others_as_they_would_alone(graphed: None, family: str) -> None:
    data, configs = some(family)
    lane = lane_of(configs, data)
    before = train(lane, 1)
    program = lane.program
    for key in (0, 3, 4, 8):
        lane.evict(key)
    for key in (3, 4):
        admit(lane, 10 + key, narrower(configs[key], key))
    curves = train(lane, 1)
    admit(lane, 18, narrower(configs[8], 8))  # into a place that was empty for an epoch
    for key, curve in train(lane, EPOCHS - 2).items():
        curves.setdefault(key, []).extend(curve)
    assert lane.program is program
    for key in (1, 2, 5, 6, 7, 9, 13, 14, 18):
        run = Run(configs[key] if key < 10 else narrower(configs[key - 10], key - 10), data, CPU)
        curve = [*before.get(key, []), *curves[key]]
        while len(run.history) < len(curve):
            run.train_epoch()
        assert_same_curve(curve, run.history)
        assert_same_state(lane.checkpoint(key), run.checkpoint())


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every call of a kernel: its name, its numbers, and which memory it reads and writes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[str, list[object]]] = []
        self._made: dict[int, int] = {}
        """Memory that came into being meanwhile, and the call that made it."""
        self._kept: list[object] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_leaves((args, kwargs or {}))
        found = func(*args, **(kwargs or {}))
        self.calls.append((str(func), [self._told(value) for value in given]))
        old = {memory_of(value) for value in given if isinstance(value, torch.Tensor)}
        for value in tree_leaves(found):
            if isinstance(value, torch.Tensor) and memory_of(value) not in old:
                self._made[memory_of(value)] = len(self.calls)
        self._kept.append(found)
        return found

    def _told(self, value: object) -> object:
        if not isinstance(value, torch.Tensor):
            return value
        memory = self._made.get(memory_of(value))
        where = ("call", memory) if memory else ("memory", memory_of(value))
        return (*where, value.storage_offset(), tuple(value.shape), value.stride(), value.dtype)


def memory_of(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def recorded(program: GraphedProgram) -> list[tuple[str, list[object]]]:
    program.counter.zero_()
    recorder = Recorder()
    with recorder:
        program.step()
    return recorder.calls


def held(lane: Lane) -> GraphedProgram:
    assert isinstance(lane.program, GraphedProgram)
    return lane.program


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_is_the_same_calls_on_the_same_memory_whatever_its_members(graphed: None, family: str) -> None:
    """So a CUDA graph of it stays true; and nothing in it waits for the device."""
    data, configs = some(family)
    lane = lane_of(configs, data)
    train(lane, 1)
    program = held(lane)
    first = recorded(program)
    assert len(first) > 50
    for key in (1, 2, 3, 7):
        lane.evict(key)
    for key in (1, 2, 7):
        admit(lane, 10 + key, narrower(configs[key], key))
    train(lane, 1)
    assert held(lane) is program and [member and member.key for member in program.members].count(None) == 7, (
        "one left, six spare"
    )
    again = recorded(program)
    assert [name for name, _ in first] == [name for name, _ in again]
    for (name, one), (_, other) in zip(first, again, strict=True):
        assert one == other, name
    waiting = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "bincount", "equal.default", "_to_copy")
    assert not [name for name, _ in first if any(word in name for word in waiting)]


def widened(config: TrialConfig) -> TrialConfig:
    assert isinstance(config.model, MLP)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, widths=(60,) * len(config.model.widths)))


def sharper(config: TrialConfig) -> TrialConfig:
    other = "tanh" if config.model.activation != "tanh" else "relu"  # type: ignore[union-attr]
    return dataclasses.replace(config, model=dataclasses.replace(config.model, activation=other))  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [widened, sharper])
def test_a_newcomer_that_fits_nowhere_makes_a_new_program(graphed: None, change: Any) -> None:
    data, configs = some("mlp")
    lane = lane_of(configs, data)
    lane.slots = 10
    train(lane, 1)
    program = held(lane)
    lane.evict(0)
    newcomer = change(configs[0])
    admit(lane, 50, newcomer)
    curves = train(lane, 2)
    assert held(lane) is not program and len(held(lane).members) == 10
    assert_same_curve(curves[50], alone(newcomer, data).history[:2])
    assert_same_curve(curves[5], alone(configs[5], data).history[1:3])


def test_a_newcomer_with_an_average_makes_a_new_program_where_none_has_one(graphed: None) -> None:
    data, configs = some("mlp")
    plain = [dataclasses.replace(config, average=NoAverage()) for config in configs]
    lane = lane_of(plain, data)
    train(lane, 1)
    program = held(lane)
    lane.evict(0)
    newcomer = dataclasses.replace(plain[0], average=EMA(0.3), seed=99)
    admit(lane, 50, newcomer)
    curves = train(lane, 2)
    assert held(lane) is not program and program.averages is None
    assert_same_curve(curves[50], alone(newcomer, data).history[:2])
    assert_same_curve(curves[5], alone(plain[5], data).history[1:3])


def test_a_program_that_is_mostly_empty_is_made_smaller(graphed: None) -> None:
    data, configs = some("mlp")
    lane = lane_of(configs, data)
    train(lane, 1)
    program = held(lane)
    for key in range(6):
        lane.evict(key)
    train(lane, 1)
    assert held(lane) is program and len(program.held()) == 4 == len(program.members) / 4
    lane.evict(6)
    train(lane, 1)
    assert held(lane) is not program and len(held(lane).members) == 4
