"""Lanes on a GPU: each goes on by itself, and is touched between its epochs only. A device is made up of looks."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat

import pytest
import torch

from hpo.config import MLP, Adam, TrialConfig
from hpo.training.cuda_graph import StepGraph
from hpo.training.devices import use_one_thread
from hpo.training.engine import EpochResult, Fault
from hpo.training.packed.compute.program import Program
from hpo.training.packed.scheduling import unit_queue
from hpo.training.packed.scheduling.engine import PackedEngine
from hpo.training.packed.scheduling.lane import Lane
from hpo.training.packed.scheduling.merging import Merging
from tests.helpers.packing import CPU, alone

use_one_thread()
EPOCHS = 6
BASE = TrialConfig("digits", MLP((8,), (0.1,)), Adam(1e-3), 64, EPOCHS, precision="fp32")
SLOW = dataclasses.replace(BASE, batch_size=32, seed=1)
"""What the made-up device computes slowly."""


def looks_before_done(program: Program) -> int:
    """How often the made-up device answers that an epoch is not computed."""
    if program.layout.batch == 16:
        return 4 if max(network.widths[0] for network in program.layout.networks) > 64 else 2  # type: ignore[union-attr]
    return 3 if program.layout.batch == 32 else 0


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[PackedEngine]:
    """An engine whose lanes are launched at once, and are done one after another."""
    looks: dict[Program, Iterator[bool]] = {}
    plain = Program.train_epoch

    def train_epoch(self: Program) -> None:
        plain(self)
        looks[self] = chain(repeat(False, looks_before_done(self)), repeat(True))

    monkeypatch.setattr(Program, "train_epoch", train_epoch)
    monkeypatch.setattr(Program, "is_done", lambda self: next(looks[self]))
    monkeypatch.setattr(unit_queue, "WAIT_SECONDS", 0.0)
    engine = PackedEngine(CPU)
    engine.units.device = torch.device("cuda", 0)
    yield engine


def two_lanes(engine: PackedEngine) -> None:
    engine.admit(0, BASE)
    engine.admit(1, SLOW)


def test_a_quick_lane_does_not_wait_for_a_slow_one(engine: PackedEngine) -> None:
    two_lanes(engine)
    curves: dict[int, list[EpochResult]] = {0: [], 1: []}
    steps = []
    while any(len(curve) < EPOCHS for curve in curves.values()):
        outcomes = engine.step()
        steps.append(sorted(outcomes))
        for key, outcome in outcomes.items():
            assert isinstance(outcome, EpochResult)
            curves[key].append(outcome)
    assert steps[:8] == [[0], [0], [0], [0, 1], [0], [0], [1], [1]], "and both go on from where they are"
    for key, config in enumerate((BASE, SLOW)):
        run = alone(config, engine.data(config))
        assert [result.train_loss for result in curves[key]] == pytest.approx(
            [result.train_loss for result in run.history], rel=1e-4
        )
    assert engine.step() == {}


def test_a_lane_completes_its_epoch_before_it_is_looked_at(engine: PackedEngine) -> None:
    two_lanes(engine)
    assert set(engine.step()) == {0}
    assert engine.snapshot(1).epoch == 1
    again = engine.snapshot(1)
    assert again.epoch == 1 and set(engine.step()) == {1}, "what was completed meanwhile is told first"
    engine.step()
    engine.evict(1)
    assert set(engine.step()) == {0}, "an evicted trial is told of no more"


def test_a_newcomer_joins_a_lane_at_its_next_epoch(engine: PackedEngine) -> None:
    two_lanes(engine)
    engine.step()
    engine.admit(2, dataclasses.replace(SLOW, seed=2))
    seen: list[set[int]] = []
    while not seen or 2 not in seen[-1]:
        seen.append(set(engine.step()))
    assert [keys for keys in seen if 1 in keys] == [{0, 1}, {1, 2}]


def test_a_fault_that_is_found_meanwhile_is_told_by_the_next_step(
    engine: PackedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_lanes(engine)
    engine.step()
    monkeypatch.setattr(Lane, "collect", failing(Lane.collect))
    engine.snapshot(1)
    [(key, outcome)] = engine.step().items()
    assert key == 1 and isinstance(outcome, Fault) and outcome.message == "RuntimeError: lost"
    engine.evict(1)


def failing(plain: Callable[[Lane], dict[int, EpochResult | Fault]]) -> object:
    def collect(self: Lane) -> dict[int, EpochResult | Fault]:
        if self.bucket.batch == SLOW.batch_size:
            raise RuntimeError("lost")
        return plain(self)

    return collect


def test_lanes_that_may_be_merged_end_their_epochs_first(engine: PackedEngine) -> None:
    def seconds(lanes: Sequence[Lane]) -> float | None:
        return None if None in [lane.seconds for lane in lanes] else float(len(lanes))

    engine.turns.merging = Merging(seconds)
    narrow = dataclasses.replace(BASE, batch_size=16, epochs=20)
    wide = dataclasses.replace(narrow, model=MLP((100,), (0.1,)))
    for key, config in enumerate([wide, wide, wide, narrow]):
        engine.admit(key, config)
    told = [engine.step()]
    while len(told[-1]) < 4:
        told.append(engine.step())
    assert [sorted(outcomes) for outcomes in told[-3:]] == [[0, 1, 2], [3], [0, 1, 2, 3]]
    for key in (0, 3):
        assert engine.snapshot(key).epoch == sum(key in outcomes for outcomes in told)
    assert len(engine.units.lanes()) == 1


def test_a_stream_is_done_when_it_is_computed_or_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        def __init__(self) -> None:
            self.answers = iter([False, True])

        def query(self) -> bool:
            answer = next(self.answers, None)
            if answer is None:
                raise RuntimeError("an illegal memory access was encountered")
            return answer

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    graph = StepGraph(torch.device("cuda", 0))
    assert [graph.is_done() for _ in range(3)] == [False, True, True] and StepGraph(CPU).is_done()
