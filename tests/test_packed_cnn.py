"""Packed convolutional networks: many as one program give what each alone would have given."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from hpo.config import CNN, TrialConfig
from hpo.training import checkpoints
from hpo.training.dataset import ResidentData
from hpo.training.devices import use_one_thread
from hpo.training.epoch import Run
from hpo.training.packed.compute.cnn import ConvImpl
from hpo.training.packed.layout.bucket import bucket_of, why_not_packed
from tests.helpers.packing import (
    CNN_EPOCHS,
    FORMS,
    admit,
    alone,
    assert_same_curve,
    assert_same_state,
    lane_of,
    mixed_cnns,
    random_images,
    train,
)

use_one_thread()


@pytest.fixture
def doubles() -> Iterator[ResidentData]:
    """Random images in fp64; networks that are built meanwhile are fp64 too."""
    torch.set_default_dtype(torch.float64)
    yield random_images()
    torch.set_default_dtype(torch.float32)


DOUBLED = "doubled convolutions, both pools, 2x2 averages"


@pytest.fixture(scope="module")
def solo_runs() -> dict[TrialConfig, Run]:
    """What the solo engine has made of a trial on the random images, whichever way it is packed."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "conv_impl", "dropout"),
    [(form, conv, True) for form in FORMS for conv in ("grouped", "unfolded")]
    + [(form, "grouped", False) for form in FORMS if form != DOUBLED],
)
def test_packed_trials_are_those_of_the_solo_engine(
    doubles: ResidentData, solo_runs: dict[TrialConfig, Run], form: str, conv_impl: ConvImpl, dropout: bool
) -> None:
    """15 steps in fp64 of trials that differ in channels, dense width, activation, norm, dropout and optimizer."""
    configs = mixed_cnns(form, dropout, 8)
    assert {bucket_of(config, doubles) for config in configs} == {bucket_of(configs[0], doubles)}
    lane = lane_of(configs, doubles, conv_impl)
    first = {key: curve[0] for key, curve in train(lane, 1).items()}
    program = lane.program
    curves = train(lane, CNN_EPOCHS - 1)
    assert program is not None
    for key, config in enumerate(configs):
        assert why_not_packed(config) is None
        if config not in solo_runs:
            solo_runs[config] = alone(config, doubles)
        run = solo_runs[config]
        assert_same_curve([first[key], *curves[key]], run.history)
        assert_same_state(lane.checkpoint(key), run.checkpoint())
    for blocks in (program.network.params, program.moments.first, program.moments.second):
        for slot in range(program.layout.slots):
            for view in blocks.views(slot).values():
                view.zero_()
        padding = torch.cat([tensor.flatten() for tensor in blocks.tensors()])
        assert len(padding) > 500 and not padding.any()


@pytest.mark.slow
def test_a_trial_goes_on_in_another_slot_or_engine(doubles: ResidentData) -> None:
    configs = mixed_cnns("two stages, flat, dense", True, 5)
    first = lane_of(configs, doubles)
    train(first, 2)
    saved = [checkpoints.from_bytes(checkpoints.to_bytes(first.checkpoint(key)), "saved") for key in range(5)]
    other = lane_of(mixed_cnns("two stages, flat, dense", False, 9)[5:], doubles)
    for key, config in enumerate(configs):
        admit(other, 100 + key, config, saved[key])
    train(other, 2)
    for key, config in enumerate(configs):
        whole = alone(config, doubles)
        assert_same_curve(alone(config, doubles, saved[key]).history, whole.history)
        assert_same_state(other.checkpoint(100 + key), whole.checkpoint())


def test_networks_of_one_lane_have_one_form(doubles: ResidentData) -> None:
    base = mixed_cnns("two stages, flat, dense", True, 1)[0]
    assert isinstance(base.model, CNN)
    for change in ({"head_width": 0}, {"kernel": 5}, {"convs": (2, 1)}, {"pool": ("avg", "max")}, {"head": "average"}):
        other = dataclasses.replace(base, model=dataclasses.replace(base.model, **change))
        assert bucket_of(other, doubles) != bucket_of(base, doubles)
    fewer = dataclasses.replace(base.model, channels=(1, 16), head_width=2000)
    assert bucket_of(dataclasses.replace(base, model=fewer), doubles) == bucket_of(base, doubles)
    assert bucket_of(base, doubles, "bf16") != bucket_of(base, doubles) and why_not_packed(base, "bf16") is None
