"""The packed engine: lanes, their refilling, what is trained alone, memory, and where packing pays."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from hpo.artifacts import FolderFiles
from hpo.cli.render.text import lanes, pace
from hpo.config import CNN, EMA, MLP, SGD, Adam, AdamW, Cosine, NoAverage, OneCycle, Split, TrialConfig
from hpo.errors import UsageError
from hpo.recipe import Budget, StudyRecipe
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.loop import Loop
from hpo.runner.session import Session
from hpo.runner.worker import make_engine, most_held
from hpo.store import queries, studies
from hpo.store.database.connect import open_store
from hpo.store.database.url import parse
from hpo.store.record import State
from hpo.training.dataset import data_key
from hpo.training.devices import use_one_thread
from hpo.training.engine import EpochResult, Fault, TrialFault
from hpo.training.epoch import Run
from hpo.training.packed.compute import memory
from hpo.training.packed.compute.mlp import MLPs
from hpo.training.packed.compute.program import Program
from hpo.training.packed.layout.bucket import Bucket, bucket_of
from hpo.training.packed.scheduling import autotune, slot_memory
from hpo.training.packed.scheduling.autotune import UNPACKED, Chooser, Plan
from hpo.training.packed.scheduling.engine import PackedEngine
from hpo.training.packed.scheduling.lane import Lane
from hpo.training.packed.scheduling.merging import Merging
from hpo.training.solo import SoloEngine
from tests.helpers.studies import small_space

use_one_thread()
CPU = torch.device("cpu")
BASE = TrialConfig(
    "digits", MLP((64, 32), (0.3, 0.1), norm="batch"), Adam(2e-3), 32, 6, schedule=OneCycle(), split=Split(0.25)
)


def config(number: int, **changes: object) -> TrialConfig:
    """Every other trial has an average."""
    model = MLP((16 + 4 * (number % 8),) * (1 + number % 3), (0.1,) * (1 + number % 3))
    average = EMA(0.4) if number % 2 else NoAverage()
    return dataclasses.replace(BASE, **({"model": model, "seed": number, "average": average} | changes))  # type: ignore[arg-type]


CONVOLUTIONAL = dataclasses.replace(BASE, model=CNN((4,), (0.0,), residual=True), epochs=2)
"""Trained alone."""


def fill(engine: PackedEngine, count: int) -> None:
    for number in range(count):
        engine.admit(number, config(number))


def results(engine: PackedEngine) -> dict[int, EpochResult]:
    outcomes = engine.step()
    assert all(isinstance(outcome, EpochResult) for outcome in outcomes.values())
    return outcomes  # type: ignore[return-value]


def sizes(engine: PackedEngine) -> list[int]:
    return sorted(len(unit.trials()) for unit in engine.units)


@pytest.mark.slow
def test_lanes_train_what_the_solo_engine_trains() -> None:
    """Of two batch sizes, on real rows, in fp32: the same curves but for rounding."""
    engine, configs = PackedEngine(CPU), [config(n, batch_size=16 if n % 3 else 32) for n in range(6)]
    for key, wanted in enumerate(configs):
        facts = engine.admit(key, wanted)
        assert facts == Run(wanted, engine.data(wanted), CPU).facts
    assert sizes(engine) == [2, 4]
    curves: dict[int, list[EpochResult]] = {key: [] for key in range(6)}
    while any(len(curve) < 6 for curve in curves.values()):
        for key, result in results(engine).items():
            curves[key].append(result)
    for key, wanted in enumerate(configs):
        run = Run(wanted, engine.data(wanted), CPU)
        while not run.finished:
            run.train_epoch()
        assert [r.epoch for r in curves[key]] == list(range(1, 7)) and curves[key][-1].last
        for ours, theirs in zip(curves[key], run.history, strict=True):
            assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-4)
            assert ours.validation_loss == pytest.approx(theirs.validation_loss, rel=1e-4)
            assert ours.validation_accuracy == pytest.approx(theirs.validation_accuracy, abs=0.01)
        assert engine.examine(key).train_accuracy == pytest.approx(run.examine().train_accuracy, abs=0.01)
        expected = run.probabilities(run.data.validation_x)
        assert abs(engine.predict(key) - expected).max() < 0.02


def test_best_weights_are_those_of_the_best_epoch() -> None:
    engine = PackedEngine(CPU)
    # The rate rises until the end, to where training is lost: on any machine the last epoch is not the best.
    wild = config(0, best_weights=True, optimizer=SGD(4.0), schedule=OneCycle(warmup=0.95), epochs=8)
    engine.admit(1, wild)
    engine.admit(2, config(1))
    curve: list[EpochResult] = []
    while not curve or not curve[-1].last:
        curve.append(results(engine)[1])
    final = engine.snapshot(1)
    resumed = Run(wild, engine.data(wild), CPU, final)
    accuracy = resumed.evaluate(resumed.data.validation_x, resumed.data.validation_y).accuracy
    assert accuracy == max(r.validation_accuracy for r in curve) > curve[-1].validation_accuracy


@pytest.mark.parametrize("best", [False, True])
def test_a_trial_ends_with_its_averages_and_is_examined_by_them_before(best: bool) -> None:
    engine, wanted = PackedEngine(CPU), config(1, best_weights=best)
    engine.admit(0, config(0))
    engine.admit(1, wanted)
    assert {name for name in engine.snapshot(1).tensors if name.startswith("average.")}, "before the first epoch"
    run = Run(wanted, engine.data(wanted), CPU)
    for _ in range(wanted.epochs):
        last = results(engine)[1]
        run.train_epoch()
        assert engine.examine(1).train_loss == pytest.approx(run.examine().train_loss, rel=1e-4)
    ours, theirs = engine.snapshot(1).tensors, run.checkpoint().tensors
    assert last.last and ours.keys() == theirs.keys()
    assert not [name for name in ours if name.startswith("average.")]
    assert all(abs(value - theirs[name]).max() < 1e-3 for name, value in ours.items())


def test_places_are_refilled_between_epochs() -> None:
    engine = PackedEngine(CPU, slots=4)
    fill(engine, 4)
    assert engine.room() == 0
    results(engine)
    engine.evict(2)
    assert engine.room() == 1
    engine.admit(10, config(10))
    assert set(results(engine)) == {0, 1, 3, 10} and sizes(engine) == [4]
    for key in (0, 1, 3, 10):
        engine.evict(key)
    assert engine.step() == {} and sizes(engine) == [] and engine.room() == 4


def test_room_grows_with_trials_that_pack_and_is_one_after_one_that_does_not() -> None:
    engine, key = PackedEngine(CPU), iter(range(1000))
    assert engine.room() == 1
    engine.admit(next(key), config(0))
    assert engine.room() == 2
    for _ in range(2):
        engine.admit(next(key), config(1))
    assert engine.room() == 5  # as many as are left
    engine.admit(1000, CONVOLUTIONAL)
    assert engine.room() == 1  # beside lanes, one alone does not keep others out
    engine.admit(1001, CONVOLUTIONAL)
    assert engine.room() == 0  # two wait for each other already
    for number in range(3):
        engine.evict(number)
    engine.evict(1001)
    assert engine.room() == 0  # as the solo engine
    engine.evict(1000)
    assert engine.room() == 1


def test_lanes_of_one_slot_hoard_no_trials() -> None:
    """They are only a faster way to train one: a second trial would wait, and learn nothing from the first."""
    engine = PackedEngine(CPU, planner=lambda config, bucket, data, packable: Plan(1))
    engine.admit(0, config(0))
    assert sizes(engine) == [1] and engine.room() == 0
    assert set(results(engine)) == {0} and engine.status() == {"lanes": 0}
    engine.evict(0)
    assert engine.room() == 1


def test_trials_side_by_side_are_those_of_the_solo_engine_bit_for_bit() -> None:
    """What a GPU would train on streams, packable or not; a CPU takes it in turns."""
    engine = PackedEngine(CPU, planner=lambda config, bucket, data, packable: Plan(8, streams=True))
    configs = [config(0), CONVOLUTIONAL, dataclasses.replace(CONVOLUTIONAL, seed=5), config(3)]
    for key, wanted in enumerate(configs):
        assert engine.room() >= 1
        engine.admit(key, dataclasses.replace(wanted, epochs=3))
    assert engine.room() == 4 and engine.status() == {"lanes": 0} and sizes(engine) == [1] * 4
    while any(len(engine.snapshot(key).history) < 3 for key in range(4)):
        results(engine)
    for key, wanted in enumerate(configs):
        run = Run(dataclasses.replace(wanted, epochs=3), engine.data(wanted), CPU)
        while not run.finished:
            run.train_epoch()
        mine, theirs = engine.snapshot(key), run.checkpoint()
        assert all((mine.tensors[name] == value).all() for name, value in theirs.tensors.items())


def test_what_does_not_pack_takes_turns_with_the_lanes() -> None:
    engine = PackedEngine(CPU)
    fill(engine, 3)
    assert engine.admit(100, CONVOLUTIONAL) == Run(CONVOLUTIONAL, engine.data(CONVOLUTIONAL), CPU).facts
    turns = [set(results(engine)) for _ in range(4)]
    assert turns == [{0, 1, 2}, {100}, {0, 1, 2}, {100}]
    alone = Run(CONVOLUTIONAL, engine.data(CONVOLUTIONAL), CPU)
    alone.train_epoch(), alone.train_epoch()
    mine = engine.snapshot(100)
    assert all((mine.tensors[n] == value).all() for n, value in alone.checkpoint().tensors.items())


def test_lower_precision_is_trained_alone() -> None:
    engine = PackedEngine(CPU)
    assert engine.admit(1, config(1, precision="bf16")).precision == "bf16"
    assert not any(isinstance(unit, Lane) for unit in engine.units)


def test_a_trial_that_cannot_start_is_refused_with_its_fault() -> None:
    engine = PackedEngine(CPU)
    with pytest.raises(TrialFault, match=r"images must be at least 2\*\*depth"):
        engine.admit(1, dataclasses.replace(BASE, model=CNN((4,) * 5, (0.0,) * 5)))
    assert engine.room() == 1 and engine.step() == {}


def test_a_diverged_trial_takes_no_further_part() -> None:
    engine = PackedEngine(CPU)
    fill(engine, 2)
    engine.admit(9, config(3, optimizer=SGD(1e30), schedule=dataclasses.replace(OneCycle(), warmup=0.5)))
    seen: dict[int, list[object]] = {0: [], 1: [], 9: []}
    for _ in range(3):
        for key, outcome in engine.step().items():
            seen[key].append(outcome)
    [fault] = seen[9]
    assert isinstance(fault, Fault) and fault.kind == "diverged" and len(seen[0]) == len(seen[1]) == 3


def scarce_memory(monkeypatch: pytest.MonkeyPatch, fits: int) -> None:
    """Have a lane of more than so many trials run out of memory in the midst of an epoch."""
    plain: Callable[..., torch.Tensor] = MLPs.compute_gradients
    calls = iter(range(10**9))

    def compute_gradients(self: MLPs, data: torch.Tensor, rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.layout.slots > fits and next(calls) % 7 == 6:
            raise torch.OutOfMemoryError("no memory left")
        return plain(self, data, rows, labels)

    monkeypatch.setattr(MLPs, "compute_gradients", compute_gradients)


def test_out_of_memory_halves_the_lane_and_loses_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    untroubled, engine = PackedEngine(CPU), PackedEngine(CPU)
    fill(untroubled, 7)
    fill(engine, 7)
    results(untroubled), results(engine)
    scarce_memory(monkeypatch, fits=2)
    found: dict[int, EpochResult] = {}
    while len(found) < 7:
        found |= results(engine)
    monkeypatch.undo()
    expected = results(untroubled)
    for key, result in expected.items():
        assert found[key].epoch == result.epoch == 2
        assert found[key].train_loss == pytest.approx(result.train_loss, rel=1e-4)
        assert found[key].validation_loss == pytest.approx(result.validation_loss, rel=1e-4)
    assert max(sizes(engine)) <= 2
    engine.admit(50, config(50))  # what is known of the memory stays known
    assert max(sizes(engine)) <= 2


def test_a_lane_is_planned_for_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, wanted = PackedEngine(CPU), config(0)
    data = engine.data(wanted)
    bucket = bucket_of(wanted, data)
    one = slot_memory.slot_bytes(wanted, bucket, data, CPU)
    padded = sum(width * inputs + width for width, inputs in [(16, 64), (10, 16)])
    epoch = len(data.train_y) * (8 + 8 + 4 * 10)  # rows, labels and logits
    assert 4 * 4 * padded + epoch < one < 2 * (4 * 4 * padded + epoch) + 10 * 4 * 32 * 16
    averaged = slot_memory.slot_bytes(dataclasses.replace(wanted, average=EMA()), bucket, data, CPU)
    table = 4 * (len(data.train_y) // 32)  # one number per step
    assert 4 * padded + table <= averaged - one < 4 * padded + table + 100
    doubled = dataclasses.replace(wanted, model=MLP((512,), (0.1,)))
    assert slot_memory.slot_bytes(doubled, bucket_of(doubled, data), data, CPU) > 4 * one
    assert memory.free_bytes(CPU) is None
    monkeypatch.setattr(slot_memory, "free_bytes", lambda device: 3.5 * one / slot_memory.SHARE)
    for key in range(7):
        engine.admit(key, wanted)
    assert sizes(engine) == [1, 3, 3]
    monkeypatch.setattr(slot_memory, "free_bytes", lambda device: 0)
    engine.admit(9, config(9, batch_size=64))  # a lane of one is the least
    assert sizes(engine) == [1, 1, 3, 3]


def two_lanes(engine: PackedEngine, apart: float, together: float) -> tuple[dict[int, TrialConfig], Lane, Lane]:
    """Three wide trials and one narrow one, of which it shall be said how long they take."""
    configs = {key: config(0, seed=key, epochs=12, model=MLP((100,), (0.1,))) for key in range(3)}
    configs[3] = config(0, seed=3, epochs=12)
    for key, wanted in configs.items():
        engine.admit(key, wanted)
    wide, narrow = (unit for unit in engine.units if isinstance(unit, Lane))

    def seconds(lanes: Sequence[Lane]) -> float | None:
        if None in [lane.seconds for lane in lanes]:
            return None
        return apart if len(lanes) == 2 else together

    engine.turns.merging = Merging(seconds)
    return configs, wide, narrow


def test_a_nearly_empty_lane_moves_where_its_trial_goes_faster() -> None:
    engine = PackedEngine(CPU)
    configs, wide, _ = two_lanes(engine, apart=1.0, together=0.9)
    curves: dict[int, list[float]] = {key: [] for key in configs}
    while min(map(len, curves.values())) < 8:
        for key, result in results(engine).items():
            curves[key].append(result.train_loss)
    assert list(engine.units) == [wide] and sizes(engine) == [4]
    for key, wanted in configs.items():
        run = Run(wanted, engine.data(wanted), CPU)
        while len(run.history) < len(curves[key]):
            run.train_epoch()
        assert curves[key] == pytest.approx([r.train_loss for r in run.history], rel=1e-3)
    engine.admit(4, config(4))  # what was learned of the bucket holds for the next of it
    assert list(engine.units) == [wide] and sizes(engine) == [5]


def test_lanes_are_parted_again_where_together_they_are_slower() -> None:
    engine = PackedEngine(CPU)
    configs, wide, narrow = two_lanes(engine, apart=1.0, together=0.96)
    seen = []
    for _ in range(12):
        assert results(engine)
        seen.append(sizes(engine))
    assert seen.count([4]) == 1 and seen[-1] == [1, 3]  # parted after the second turn: the first made a new program
    assert {unit.bucket for unit in engine.units.lanes()} == {wide.bucket, narrow.bucket}
    assert not engine.turns.merging.pair(engine.units.lanes())
    assert sorted(key for unit in engine.units for key in unit.live()) == list(configs)


def test_a_trial_too_large_for_memory_alone_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = PackedEngine(CPU)
    fill(engine, 2)
    scarce_memory(monkeypatch, fits=0)
    found: dict[int, object] = {}
    while len(found) < 2:
        found |= engine.step()
    assert [outcome.kind for outcome in found.values() if isinstance(outcome, Fault)] == ["oom", "oom"]
    assert engine.step() == {}


def test_occupancy_is_told() -> None:
    engine = PackedEngine(CPU, slots=4)
    assert engine.status() == {"lanes": 0}
    fill(engine, 2)
    results(engine)
    assert engine.status() == {"lanes": 1, "occupancy": 0.5}


@pytest.mark.slow
def test_auto_packs_nothing_that_measures_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes made slow: every trial is trained alone, whatever its shape, and each bucket is measured once."""
    plain, measured = Program.train_epoch, []

    def slow(self: Program) -> None:
        measured.append(self.layout.batch)
        end = time.thread_time() + 0.08
        while time.thread_time() < end:
            pass
        plain(self)

    monkeypatch.setattr(Program, "train_epoch", slow)
    engine = PackedEngine(CPU)
    engine.planner = Chooser(CPU, engine.slots)
    for key, wanted in enumerate([config(0), config(1), config(0, batch_size=64)]):
        engine.admit(key, wanted)
        assert not any(isinstance(unit, Lane) for unit in engine.units) and engine.room() == 0
        engine.evict(key)
    assert set(measured) == {32, 64} and set(engine.planner.known.values()) == {UNPACKED}


def test_auto_packs_what_measures_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Run.train_only

    def slow(self: Run, epoch: int) -> tuple[float, float]:
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
        return plain(self, epoch)

    monkeypatch.setattr(Run, "train_only", slow)
    data = SoloEngine(CPU).data(BASE)
    assert Chooser(CPU, 8)(BASE, bucket_of(BASE, data), data, packable=True).slots > 0


def test_auto_takes_amplified_rounding_for_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """16-80 with a rate of 0.09: Adam makes steps of the rounding in the gradient of a bias before a batch norm."""
    model = MLP((16, 80), (0.5, 0.5), activation="tanh", norm="batch")
    fast = config(1022, model=model, optimizer=AdamW(0.0933), schedule=Cosine(), average=NoAverage(), batch_size=16)
    data = SoloEngine(CPU).data(fast)
    Chooser(CPU, 8)(fast, bucket_of(fast, data), data, packable=True)
    assert caplog.text == ""


def test_auto_packs_nothing_that_computes_something_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = MLPs.evaluate
    monkeypatch.setattr(MLPs, "evaluate", lambda self, x: plain(self, x).flip(2))
    monkeypatch.setattr(autotune, "MARGIN", 1e9)  # however slow the plain engine is
    data = SoloEngine(CPU).data(BASE)
    assert Chooser(CPU, 8)(BASE, bucket_of(BASE, data), data, packable=True) == UNPACKED
    assert "trials are trained one by one: packed networks differ from plain ones by" in caplog.text


def test_buckets_part_batches_and_powers_of_two() -> None:
    data = SoloEngine(CPU).data(BASE)
    key = data_key(BASE)
    assert bucket_of(BASE, data) == bucket_of(config(3), data) == Bucket(key, 32, 64)
    assert bucket_of(config(0, model=MLP((16, 65), (0.0, 0.0))), data) == Bucket(key, 32, 128)
    assert bucket_of(config(0, batch_size=10**6), data).batch == len(data.train_y)


def test_an_engine_goes_by_its_name_and_is_no_part_of_what_a_study_is() -> None:
    kinds = {name: make_engine(name, "cpu") for name in ("solo", "packed", "auto")}
    assert isinstance(kinds["solo"], SoloEngine)
    assert isinstance(kinds["packed"], PackedEngine) and not isinstance(kinds["packed"].planner, Chooser)
    assert isinstance(kinds["auto"], PackedEngine) and isinstance(kinds["auto"].planner, Chooser)
    assert make_engine("packed", "cpu", 3).slots == 3 and make_engine("auto", "cpu", 99).slots == 8  # type: ignore[attr-defined]
    with pytest.raises(UsageError):
        make_engine("auto", "gpu")
    assert StudyRecipe().engine == "auto"
    assert StudyRecipe(engine="solo").identity() == StudyRecipe(engine="packed").identity()


def test_a_worker_holds_an_eighth_of_a_search_and_all_of_what_only_waits(tmp_path: Path) -> None:
    store = open_store(parse(f"sqlite:///{tmp_path}/s.db"), create=True)
    for name, budget in (("search", Budget(trials=60)), ("confirm", Budget(trials=60, only_waiting=True))):
        assert studies.create(store, name, "small", small_space(), StudyRecipe(budget=budget), "f" * 64)
    assert most_held(store, studies.load_study(store, "search")) == 7
    studies.update_budget(store, studies.load_study(store, "search"), trials=4)
    assert most_held(store, studies.load_study(store, "search")) == 1
    assert most_held(store, studies.load_study(store, "confirm")) is None


def test_lanes_and_pace_are_seen(tmp_path: Path) -> None:
    store = open_store(parse(f"sqlite:///{tmp_path}/s.db"), create=True)
    assert studies.create(store, "s", "small", small_space(), StudyRecipe(budget=Budget(trials=12)), "f" * 64)
    study = studies.load_study(store, "s")
    with Session(store, study, {"device": "cpu"}) as session:
        engine = PackedEngine(CPU, slots=3)
        loop = Loop(session, engine, CheckpointRetention(FolderFiles(tmp_path), study.recipe.checkpoints))
        while sum(sizes(engine)) < 3:
            loop.fill()
            loop.advance()
        loop._look()
        session.link.flush()
        with store.read() as connection:
            view = queries.study(connection, study.study_id)
        assert view.lanes == len(sizes(engine)) and 0 < (view.occupancy or 0) < 1
    told = dataclasses.replace(view, counts=view.counts | {State.COMPLETE: 3, State.PRUNED: 2}, active_seconds=36.0)
    assert pace(told) == "500 trials per hour" and lanes(told).startswith(f"{view.lanes} lane")
