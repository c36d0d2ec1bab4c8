"""Spare slots: a search makes few programs, which a GPU would each record as a graph."""

import dataclasses
import random
from collections.abc import Iterator

import pytest
import torch

from hpo.config import CNN, EMA, MLP, Adam, TrialConfig
from hpo.models import build_model
from hpo.training.devices import use_one_thread
from hpo.training.engine import EpochResult
from hpo.training.packed.compute.fused import Way
from hpo.training.packed.compute.graphed_program import GraphedProgram
from hpo.training.packed.compute.layers import CODES
from hpo.training.packed.compute.network import inputs_of
from hpo.training.packed.compute.program import member_of
from hpo.training.packed.compute.static_mlp import StaticMLPs
from hpo.training.packed.layout.bucket import Bucket, bucket_of
from hpo.training.packed.scheduling import lane as lanes
from hpo.training.packed.scheduling.engine import PackedEngine
from hpo.training.packed.scheduling.foresight import Foresight, most_of
from hpo.training.packed.scheduling.lane import Lane
from tests.helpers.packing import CLASSES, CPU, alone, assert_same_curve, assert_same_state, random_rows

use_one_thread()
DATA = random_rows(4, rows=64)
SHORT = TrialConfig("digits", MLP((16,), (0.1,)), Adam(1e-3), 32, 3, precision="fp32")
HELD = 25
"""Trials at once: an eighth of the 200 of the search."""


class Untrained(GraphedProgram):
    """A program whose epochs change nothing."""

    def train_epoch(self) -> None:
        pass

    def snapshot(self) -> None:
        pass


class AnyActivation(Untrained):
    """One whose slots take any activation, as with kernels of Triton."""

    def _fused_way(self) -> Way | None:
        return Way(lambda: None, lambda: None)


def drawn(chance: random.Random) -> TrialConfig:
    """A random MLP of one to three layers of up to 128 units."""
    depth = chance.randint(1, 3)
    widths = tuple(round(8 * 16 ** chance.random()) for _ in range(depth))
    rates = tuple(chance.choice([0.0, 0.2, 0.5]) for _ in range(depth))
    activation = chance.choice(["relu", "tanh", "gelu"])
    model = MLP(widths, rates, activation, chance.choice(["none", "batch"]))  # type: ignore[arg-type]
    clip = chance.choice([None, 1.0])
    return TrialConfig("digits", model, Adam(1e-3), 32, chance.choice([1, 1, 3, 9]), clip_norm=clip, precision="fp32")


def programs_made(monkeypatch: pytest.MonkeyPatch, kind: type[GraphedProgram], draws: int) -> int:
    """Hold up to 25 trials, twice as many with each epoch, until so many are drawn; count the programs made."""
    made = []

    def counted(*args: object, **kwargs: object) -> GraphedProgram:
        made.append(1)
        return kind(*args, **kwargs)  # type: ignore[arg-type]

    counted.static_shapes = True  # type: ignore[attr-defined]
    monkeypatch.setattr(lanes, "program_kind", lambda device: counted)
    chance, key = random.Random(0), 0
    held: dict[int, Bucket] = {}
    left: dict[int, int] = {}
    lane_of: dict[Bucket, Lane] = {}
    while key < draws or left:
        for _ in range(min(HELD - len(left), len(left) + 1, draws - key)):
            config = drawn(chance)
            bucket = bucket_of(config, DATA)
            if bucket not in lane_of:
                rows = inputs_of(config, DATA.train_x), inputs_of(config, DATA.validation_x)
                lane_of[bucket] = Lane(bucket, HELD, DATA, *rows)
            model = build_model(config.model, DATA.input_shape, CLASSES, seed=key)
            lane_of[bucket].admit(member_of(key, config, model, None, CPU))
            held[key], left[key], key = bucket, config.epochs, key + 1
        for bucket in set(map(held.__getitem__, left)):
            lane_of[bucket].launch()
        for ended in [number for number, epochs in left.items() if epochs == 1]:
            lane_of[held[ended]].evict(ended)
            del left[ended]
        left = {number: epochs - 1 for number, epochs in left.items()}
    return len(made)


def test_a_search_makes_few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """51 of 200 trials without spare slots."""
    assert programs_made(monkeypatch, AnyActivation, 200) <= 14
    assert programs_made(monkeypatch, Untrained, 200) <= 30


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lanes take any activation, and train in fp64."""

    class Fused(GraphedProgram):
        def _fused_way(self) -> Way:
            return self.plain

    monkeypatch.setattr(lanes, "program_kind", lambda device: Fused)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_a_spare_slot_trains_a_newcomer_of_another_activation(fused: None) -> None:
    data = random_rows(4, rows=64)
    first = dataclasses.replace(SHORT, model=MLP((9, 7), (0.3, 0.0), "relu", "batch"), optimizer=Adam(1e-3, eps=1e-5))
    newcomer = dataclasses.replace(first, model=MLP((6,), (0.5,), "tanh"), seed=1)
    rows = inputs_of(first, data.train_x), inputs_of(first, data.validation_x)
    lane = Lane(bucket_of(first, data), 64, data, *rows)

    def admit(key: int, config: TrialConfig) -> None:
        model = build_model(config.model, data.input_shape, CLASSES, seed=config.seed)
        lane.admit(member_of(key, config, model, None, CPU))

    def train() -> None:
        lane.launch()
        lane.collect()

    admit(0, first)
    train()
    program = lane.program
    assert program is not None and len(program.members) == 4
    admit(1, newcomer)
    train()
    train()
    assert lane.program is program
    assert isinstance(program.network, StaticMLPs)
    assert program.network.activations.tolist() == [CODES["relu"], CODES["tanh"], *[CODES["relu"]] * 2]
    assert_same_state(lane.checkpoint(0), alone(first, data).checkpoint())
    train()
    for key, config in enumerate((first, newcomer)):
        run = alone(config, data)
        assert_same_state(lane.checkpoint(key), run.checkpoint())
        ours = [dataclasses.replace(result, seconds=0.0) for result in lane.members[key].history]
        assert_same_curve(ours, run.history)
    admit(2, dataclasses.replace(newcomer, model=MLP((6,), (0.5,), "sigmoid")))
    train()
    assert lane.program is not program, "sigmoid needs a mask"


def test_a_slot_is_made_for_all_that_its_bucket_has_needed() -> None:
    small = TrialConfig("digits", MLP((9,), (0.3,), "relu"), Adam(1e-3), 32, 3, clip_norm=1.0)
    deep = dataclasses.replace(small, model=MLP((5, 20), (0.0, 0.1), "tanh", "batch"), clip_norm=None, average=EMA())
    foresight = Foresight()
    assert [config.model for config in foresight.spare([small], 2)] == [small.model]
    assert foresight.spare([deep] * 4, 64) == foresight.spare([small] * 64, 64) == []
    spare = foresight.spare([small], 64)
    assert [config.model.activation for config in spare] == ["relu", "tanh", "relu"]  # type: ignore[union-attr]
    assert spare[1].model == MLP((9, 20), (0.3, 0.1), "tanh", "batch")
    assert spare[0].clip_norm == 1.0 and spare[0].average == EMA() and spare[0].class_weight == "none"
    assert [len(foresight.spare([small] * n, 25)) for n in (4, 5, 16, 17, 25)] == [0, 11, 0, 8, 0]


def test_of_convolutions_each_stage_has_the_most_channels() -> None:
    one = TrialConfig("digits", CNN((4, 9), (0.0, 0.2), head_width=5), Adam(1e-3), 32, 3)
    other = dataclasses.replace(one, model=CNN((6, 7), (0.1, 0.0), norm="batch", head_width=8, head_dropout=0.3))
    network = most_of(one, other).model
    assert network == CNN((6, 9), (0.1, 0.2), norm="batch", head_width=8, head_dropout=0.3)


def test_a_trial_for_whose_spare_slots_memory_is_too_small_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scarce(GraphedProgram):
        def train_epoch(self) -> None:
            if len(self.members) > 1:
                raise torch.OutOfMemoryError("no memory left")
            super().train_epoch()

    monkeypatch.setattr(lanes, "program_kind", lambda device: Scarce)
    engine = PackedEngine(CPU)
    engine.admit(0, SHORT)
    outcome = engine.step()[0]
    assert isinstance(outcome, EpochResult) and len(list(engine.units)) == 1
