"""Packed training: many networks as one program give what each alone would have given."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from hpo.config import (
    CNN,
    MLP,
    SGD,
    Adam,
    AdamW,
    Augment,
    Optimizer,
    PythonNetwork,
    RMSprop,
    SGDMomentum,
    TrialConfig,
)
from hpo.models import build_model
from hpo.training import checkpoints, randomness
from hpo.training.dataset import ResidentData
from hpo.training.devices import use_one_thread
from hpo.training.engine import EpochResult, Fault
from hpo.training.epoch import Run
from hpo.training.metrics import Metrics
from hpo.training.packed.compute import masks
from hpo.training.packed.compute.graphed_program import GraphedProgram
from hpo.training.packed.compute.optimizers import Clipping, FusedStep, Moments, VectorizedStep
from hpo.training.packed.compute.program import Program, member_of
from hpo.training.packed.layout.blocks import Blocks
from hpo.training.packed.layout.bucket import bucket_of, why_not_packed
from hpo.training.packed.layout.mlp import MLPLayout
from tests.helpers.packing import (
    BATCH,
    CLASSES,
    CPU,
    EPOCHS,
    FEATURES,
    OPTIMIZERS,
    admit,
    alone,
    assert_same_curve,
    assert_same_state,
    lane_of,
    mixed_mlps,
    random_rows,
    train,
)

use_one_thread()


@pytest.fixture
def doubles() -> Iterator[ResidentData]:
    """Random rows in fp64; networks that are built meanwhile are fp64 too."""
    torch.set_default_dtype(torch.float64)
    yield random_rows(FEATURES)
    torch.set_default_dtype(torch.float32)


def with_layer_norm(configs: Sequence[TrialConfig]) -> list[TrialConfig]:
    """The same trials; a few units that hardly differ, standardized, turn rounding into chaos in either engine."""
    found = []
    for config in configs:
        assert isinstance(config.model, MLP)
        widths = tuple(max(16, width) for width in config.model.widths)
        found.append(dataclasses.replace(config, model=dataclasses.replace(config.model, norm="layer", widths=widths)))
    return found


def assert_padding_is_zero(program: Program) -> None:
    assert program.averages is not None
    for blocks in (program.network.params, program.moments.first, program.moments.second, program.averages.params):
        for slot in range(program.layout.slots):
            for view in blocks.views(slot).values():
                view.zero_()
        padding = torch.cat([tensor.flatten() for tensor in blocks.tensors()])
        assert len(padding) > 10_000 and not padding.any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm", "dropout", "epochs"), [("batch or none", True, EPOCHS), ("batch or none", False, 4), ("layer", True, 6)]
)
def test_packed_trials_are_those_of_the_solo_engine(
    doubles: ResidentData, norm: str, dropout: bool, epochs: int
) -> None:
    """200 steps in fp64 of 24 trials that differ in width, depth, optimizer, rates, norm and activation.

    Without dropout, which is the same but for the masks, and with layer norm, fewer.
    """
    configs = [dataclasses.replace(config, epochs=epochs) for config in mixed_mlps(dropout)]
    if norm == "layer":
        configs = with_layer_norm(configs)
    lane = lane_of(configs, doubles)
    first = {key: curve[0] for key, curve in train(lane, 1).items()}
    program = lane.program
    curves = train(lane, epochs - 1)
    assert program is not None and lane.program is program
    for key, config in enumerate(configs):
        run = alone(config, doubles)
        assert_same_curve([first[key], *curves[key]], run.history)
        assert_same_state(lane.checkpoint(key), run.checkpoint())
    assert_padding_is_zero(program)


def state_after(
    kind: type[Program], configs: Sequence[TrialConfig], data: ResidentData, device: torch.device
) -> tuple[Program, dict[int, dict[str, torch.Tensor]], dict[int, tuple[float, float]]]:
    """The members' states after two epochs of a kind of program, and their figures in training."""
    rows = data.train_x.to(device)
    on_device = dataclasses.replace(data, train_x=rows, train_y=data.train_y.to(device))
    members = []
    for key, config in enumerate(configs):
        model = build_model(config.model, data.input_shape, CLASSES, seed=config.seed)
        members.append(member_of(key, config, model, None, device))
    program = kind(members, on_device, rows, bucket_of(configs[0], data))
    for _ in range(2):
        program.train_epoch()
        program.join()
        for member in members:
            member.history.add_epoch((0.5, 1.0), Metrics(0.5, 0.5, 0.5, 1.0), 0.0)
    scores = program.training_scores()
    states = {m.key: program.tensors(slot) for slot, m in program.held()}
    return program, states, {m.key: scores[slot] for slot, m in program.held()}


@pytest.mark.parametrize("norm", ["batch or none", "layer"])
def test_counted_steps_are_the_plain_ones(doubles: ResidentData, norm: str) -> None:
    """What a graph would replay - rows, rates, masks and moments by a counter on the device - step by step."""
    configs = mixed_mlps(dropout=True) if norm != "layer" else with_layer_norm(mixed_mlps(dropout=True))
    _, plain, scores = state_after(Program, configs, doubles, CPU)
    _, counted, counted_scores = state_after(GraphedProgram, configs, doubles, CPU)
    for key, state in plain.items():
        assert state.keys() == counted[key].keys()
        for name, value in state.items():
            assert (value - counted[key][name]).abs().max() <= 1e-12, name
    for key, figures in scores.items():
        assert figures == pytest.approx(counted_scores[key], rel=0, abs=1e-12)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_captured_lane_trains_as_the_same_steps_one_by_one(doubles: ResidentData) -> None:
    cuda = torch.device("cuda", 0)

    class Stepwise(GraphedProgram):
        def train_epoch(self) -> None:
            self.step_graph.capturable = False
            super().train_epoch()

    configs = mixed_mlps(dropout=True)
    _, expected, _ = state_after(Stepwise, configs, doubles, cuda)
    program, captured, _ = state_after(GraphedProgram, configs, doubles, cuda)
    assert isinstance(program, GraphedProgram) and program.step_graph.graphs
    for key, state in expected.items():
        for name, value in state.items():
            assert (value - captured[key][name]).abs().max() <= 1e-9, name


def plain_parameters(layout: MLPLayout, slot: int, params: Blocks) -> list[torch.Tensor]:
    return [view.clone().requires_grad_() for view in params.views(slot).values()]


def torchs_own(config: Optimizer, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    match config:
        case SGD():
            return torch.optim.SGD(parameters, **common)
        case SGDMomentum():
            return torch.optim.SGD(parameters, **common, momentum=config.momentum, nesterov=config.nesterov)
        case Adam() | AdamW():
            kind = torch.optim.AdamW if isinstance(config, AdamW) else torch.optim.Adam
            return kind(parameters, **common, betas=(config.beta1, config.beta2), eps=config.eps)
        case RMSprop():
            return torch.optim.RMSprop(parameters, **common, alpha=config.alpha, eps=config.eps)


@pytest.mark.parametrize("kind", [VectorizedStep, FusedStep])
@pytest.mark.parametrize("clip", [None, 0.7])
def test_every_slots_optimizer_is_torchs_own(
    doubles: ResidentData, kind: type[VectorizedStep], clip: float | None
) -> None:
    """All kinds at once, with rates that change at each step, clipped by norms of their own, against torch.optim."""
    networks = tuple(MLP((9 + i,) * (3 - i // 2), (0.0,) * (3 - i // 2), norm="batch") for i in range(6))
    layout = MLPLayout(networks, 7, 4, 8)
    params, grads = Blocks(layout, torch.float64, CPU), Blocks(layout, torch.float64, CPU)
    source = torch.Generator().manual_seed(1)
    for slot in range(6):
        for view in params.views(slot).values():
            view.normal_(generator=source)
    theirs = [plain_parameters(layout, slot, params) for slot in range(6)]
    optimizers = [torchs_own(config, plain) for config, plain in zip(OPTIMIZERS, theirs, strict=True)]
    moments = Moments(params, OPTIMIZERS)
    step, clipping = kind(params, grads, moments), Clipping(grads, [clip, None, clip, clip, clip, None])
    for number in range(30):
        lrs = [config.lr * (1 + number % 5) / 5 for config in OPTIMIZERS]
        for slot, optimizer in enumerate(optimizers):
            for view, plain in zip(grads.views(slot).values(), theirs[slot], strict=True):
                view.normal_(generator=source)
                plain.grad = view.clone()
            if clip is not None and slot not in (1, 5):
                torch.nn.utils.clip_grad_norm_(theirs[slot], clip)
            optimizer.param_groups[0]["lr"] = lrs[slot]
            optimizer.step()
        if clip is not None:
            clipping()
        step(lrs)
    for slot, plain_ones in enumerate(theirs):
        for view, plain in zip(params.views(slot).values(), plain_ones, strict=True):
            assert (view - plain).abs().max() <= 1e-12


@pytest.mark.slow
def test_a_trial_goes_on_in_another_slot_or_engine(doubles: ResidentData) -> None:
    """Killed in a lane and resumed in another, beside others; or in the solo engine; or from there in a lane."""
    configs = [dataclasses.replace(c, epochs=8) for c in mixed_mlps(dropout=True)[:8]]
    runs = [alone(config, doubles) for config in configs]
    first = lane_of(configs, doubles)
    train(first, 3)
    saved = [checkpoints.from_bytes(checkpoints.to_bytes(first.checkpoint(key)), "saved") for key in range(8)]
    other = lane_of(mixed_mlps(dropout=False)[20:], doubles)
    train(other, 2)
    for key, config in enumerate(configs):
        assert_same_curve(alone(config, doubles, saved[key]).history, runs[key].history)
        half = Run(config, doubles, CPU)
        for _ in range(4):
            half.train_epoch()
        admit(other, 100 + key, config, saved[key])
        admit(other, 200 + key, config, checkpoints.from_bytes(checkpoints.to_bytes(half.checkpoint()), "saved"))
    train(other, 5)
    for key in range(8):
        for resumed in (100 + key, 200 + key):
            state = other.checkpoint(resumed)
            assert_same_curve(state.history, runs[key].history)
            assert_same_state(state, runs[key].checkpoint())


def test_a_used_slot_gives_what_a_fresh_lane_gives(doubles: ResidentData) -> None:
    early, late = (mixed_mlps(dropout=True)[i : i + 6] for i in (0, 12))
    lane = lane_of(early, doubles)
    train(lane, 4)
    for key in range(1, 6):
        lane.evict(key)
    for key, config in enumerate(late):
        admit(lane, 10 + key, config)
    refilled, fresh = train(lane, 5), train(lane_of(late, doubles), 5)
    for key in range(6):
        assert_same_curve(refilled[10 + key], fresh[key])


def test_masks_are_the_same_however_they_are_drawn_and_held(
    doubles: ResidentData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draws and held steps that end in the midst of each other."""
    configs = [dataclasses.replace(c, epochs=2) for c in mixed_mlps(dropout=True)[:6]]
    configs[0] = dataclasses.replace(configs[0], model=MLP((20,), (0.999,)))  # of which no byte keeps a unit
    monkeypatch.setattr(randomness, "_CHUNK", 3 * BATCH * 20)
    monkeypatch.setattr(masks, "HELD_BYTES", 4 * 6 * BATCH * 48)
    lane = lane_of(configs, doubles)
    curves = train(lane, 2)
    for key, config in enumerate(configs):
        assert_same_curve(curves[key], alone(config, doubles).history)


def test_a_trial_that_diverges_leaves_its_neighbours_alone(doubles: ResidentData) -> None:
    configs = mixed_mlps(dropout=True)[:4]
    wild = dataclasses.replace(configs[0], optimizer=SGD(1e200), seed=99, label_smoothing=0.0, clip_norm=None)
    lane = lane_of([*configs, wild], doubles)
    lane.launch()
    outcomes = lane.collect()
    fault = outcomes.pop(4)
    assert fault == Fault("diverged", "the loss was not finite in epoch 1") == Run(wild, doubles, CPU).train_epoch()
    for key, result in outcomes.items():
        expected = Run(configs[key], doubles, CPU).train_epoch()
        assert isinstance(result, EpochResult) and isinstance(expected, EpochResult)
        assert_same_curve([result], [expected])


PLAIN = TrialConfig("digits", MLP((64,), (0.0,)), SGD(0.1), 32, 5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": CNN((8,), (0.0,), residual=True)}, "residual"),
        ({"model": CNN((8,), (0.0,), norm="layer")}, "layer norm"),
        ({"model": PythonNetwork("net.py:make", "0" * 64, {})}, "Python code"),
        ({"model": MLP((), ())}, "without hidden layers"),
        ({"model": MLP((2048,), (0.0,))}, "wider than 1024"),
        ({"model": MLP((64,), (0.0,), residual=True)}, "residual"),
        ({"augment": Augment(flip=0.5)}, "augmented"),
        ({"accumulation": 2}, "accumulation"),
        ({"batch_size": 1}, "one row"),
    ],
)
def test_what_is_not_packed_says_why(change: dict[str, object], reason: str) -> None:
    assert why_not_packed(PLAIN) is None
    assert reason in str(why_not_packed(dataclasses.replace(PLAIN, **change)))  # type: ignore[arg-type]
