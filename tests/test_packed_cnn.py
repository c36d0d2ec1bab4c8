"""Packed convolutional networks: many as one program give what each alone would have given."""

import dataclasses
import random
from collections.abc import Iterator

import pytest
import torch

from hpo.config import CNN, Constant, Cosine, OneCycle, TrialConfig
from hpo.training import checkpoints
from hpo.training.dataset import ResidentData
from hpo.training.devices import use_one_thread
from hpo.training.packed.bucket import bucket_of, why_alone
from hpo.training.packed.cnn import ConvImpl
from tests.packing import (
    ACTIVATIONS,
    BATCH,
    OPTIMIZERS,
    admit,
    alone,
    assert_same_curve,
    assert_same_state,
    lane_of,
    random_rows,
    train,
)

use_one_thread()
EPOCHS = 3
FORMS: dict[str, dict[str, object]] = {
    "one stage, averaged": {"stages": 1},
    "two stages, flat, dense": {"stages": 2, "head": "flatten", "head_width": 24},
    "doubled convolutions, both pools, 2x2 averages": {
        "stages": 3, "convs": (2, 1, 2), "pool": ("avg", "none", "max"), "head_size": 2, "kernel": 5
    },
}  # fmt: skip


@pytest.fixture
def doubles() -> Iterator[ResidentData]:
    """Random images in fp64; networks that are built meanwhile are fp64 too."""
    torch.set_default_dtype(torch.float64)
    yield random_rows(2, 9, 8)
    torch.set_default_dtype(torch.float32)


def mixed_configs(form: str, dropout: bool, count: int) -> list[TrialConfig]:
    """Trials that differ in all that may differ within a lane of one form."""
    chance = random.Random(form)
    fixed = dict(FORMS[form])
    stages, dense = int(fixed.pop("stages")), "head_width" in fixed  # type: ignore[call-overload]
    configs = []
    for i in range(count):
        model = CNN(
            tuple(chance.choice([3, 4, 7, 8]) for _ in range(stages)),
            tuple(chance.choice([0.0, 0.1, 0.4]) if dropout else 0.0 for _ in range(stages)),
            activation=ACTIVATIONS[i % 5],  # type: ignore[arg-type]
            norm="batch" if chance.random() < 0.5 else "none",
            head_dropout=chance.choice([0.0, 0.3]) if dropout else 0.0,
            **(fixed | ({"head_width": chance.choice([9, 16, 24])} if dense else {})),  # type: ignore[arg-type]
        )
        configs.append(
            TrialConfig(
                "digits",
                model,
                OPTIMIZERS[i % 6],
                BATCH,
                EPOCHS,
                seed=i,
                schedule=[Constant(), OneCycle(), Cosine()][i % 3],
                label_smoothing=0.1 * (i % 2),
                class_weight="balanced" if i % 5 < 2 else "none",
                clip_norm=0.5 if i % 4 == 1 else None,
                best_weights=i % 7 == 0,
                precision="fp32",
            )
        )
    return configs


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("way", "dropout"), [("grouped", True), ("grouped", False), ("unfolded", True)])
def test_packed_trials_are_those_of_the_solo_engine(doubles: ResidentData, form: str, way: ConvImpl, dropout: bool):
    """30 steps in fp64 of trials that differ in channels, dense width, activation, norm, dropout and optimizer."""
    configs = mixed_configs(form, dropout, 8)
    assert {bucket_of(config, doubles) for config in configs} == {bucket_of(configs[0], doubles)}
    lane = lane_of(configs, doubles, way)
    first = {key: curve[0] for key, curve in train(lane, 1).items()}
    program = lane._program
    curves = train(lane, EPOCHS - 1)
    assert program is not None
    for key, config in enumerate(configs):
        assert why_alone(config) is None
        run = alone(config, doubles)
        assert_same_curve([first[key], *curves[key]], run.history)
        assert_same_state(lane.checkpoint(key), run.checkpoint())
    for blocks in (program.network.params, program.moments.first, program.moments.second):
        for slot in range(program.layout.slots):
            for view in blocks.views(slot).values():
                view.zero_()
        padding = torch.cat([tensor.flatten() for tensor in blocks.tensors()])
        assert len(padding) > 500 and not padding.any()


def test_a_trial_goes_on_in_another_slot_or_engine(doubles: ResidentData):
    configs = mixed_configs("two stages, flat, dense", True, 5)
    first = lane_of(configs, doubles)
    train(first, 2)
    saved = [checkpoints.from_bytes(checkpoints.to_bytes(first.checkpoint(key)), "saved") for key in range(5)]
    other = lane_of(mixed_configs("two stages, flat, dense", False, 9)[5:], doubles)
    for key, config in enumerate(configs):
        admit(other, 100 + key, config, saved[key])
    train(other, 2)
    for key, config in enumerate(configs):
        whole = alone(config, doubles)
        assert_same_curve(alone(config, doubles, saved[key]).history, whole.history)
        assert_same_state(other.checkpoint(100 + key), whole.checkpoint())


def test_networks_of_one_lane_have_one_form(doubles: ResidentData):
    base = mixed_configs("two stages, flat, dense", True, 1)[0]
    assert isinstance(base.model, CNN)
    for change in ({"head_width": 0}, {"kernel": 5}, {"convs": (2, 1)}, {"pool": ("avg", "max")}, {"head": "average"}):
        other = dataclasses.replace(base, model=dataclasses.replace(base.model, **change))  # type: ignore[arg-type]
        assert bucket_of(other, doubles) != bucket_of(base, doubles)
    fewer = dataclasses.replace(base.model, channels=(1, 16), head_width=2000)
    assert bucket_of(dataclasses.replace(base, model=fewer), doubles) == bucket_of(base, doubles)
    assert bucket_of(base, doubles, "bf16") != bucket_of(base, doubles) and why_alone(base, "bf16") is None
