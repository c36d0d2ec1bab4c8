"""Augmentation: each kind does what its name says, by (seed, epoch) alone; and smaller data and images."""

import dataclasses
import json

import pytest
import torch

from hpo.config import CNN, MLP, Adam, Augment, Split, TrialConfig
from hpo.data import info, load_parts
from hpo.errors import ModelError
from hpo.training import augmentation, checkpoints
from hpo.training.dataset import ResidentData, fraction, resident
from hpo.training.epoch import Run
from hpo.training.graphed_run import GraphedRun
from hpo.training.randomness import generator
from hpo.training.solo import SoloEngine

CPU = torch.device("cpu")
KINDS = {
    "flip": Augment(flip=0.5),
    "shift": Augment(shift=2),
    "rotate": Augment(rotate=30.0),
    "erase": Augment(erase=0.5),
    "jitter": Augment(jitter=0.3),
    "all": Augment(flip=0.5, shift=1, rotate=10.0, erase=0.2, jitter=0.2),
}
CNN_RUN = TrialConfig(
    data="digits",
    model=CNN((4, 8), (0.1, 0.0), norm="batch"),
    optimizer=Adam(lr=1e-2),
    batch_size=32,
    epochs=4,
    split=Split(0.25),
    augment=KINDS["all"],
)


def images(channels: int = 3, count: int = 1500) -> torch.Tensor:
    chance = torch.Generator().manual_seed(0)
    x = torch.rand(count, channels, 12, 10, generator=chance)
    return x.contiguous(memory_format=torch.channels_last)


def run(x: torch.Tensor, augment: Augment, seed: int = 0, epoch: int = 0) -> torch.Tensor:
    out = torch.empty_like(x)
    augmentation.augmented(x, augment, torch.zeros(x.shape[1]), seed=seed, epoch=epoch, out=out)
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_follows_from_seed_and_epoch_alone(kind: str, channels: int) -> None:
    x = images(channels)
    before = x.clone()
    first = run(x, KINDS[kind])
    assert torch.equal(first, run(x, KINDS[kind])) and torch.equal(x, before)
    assert first.is_contiguous(memory_format=torch.channels_last) and first.isfinite().all()
    assert not torch.equal(first, x)
    assert not torch.equal(first, run(x, KINDS[kind], epoch=1))
    assert not torch.equal(first, run(x, KINDS[kind], seed=1))


def test_about_half_are_flipped_the_others_stay() -> None:
    x = images()
    out = run(x, KINDS["flip"])
    same = (out == x).flatten(1).all(1)
    mirrored = (out == x.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all() and 0.45 < mirrored.float().mean() < 0.55


def test_a_shift_is_a_crop_of_the_padded_image() -> None:
    x = images()
    out, padded = run(x, KINDS["shift"]), torch.nn.functional.pad(x, (2, 2, 2, 2))
    seen = torch.zeros(5, 5, dtype=torch.long)
    for image, wide in zip(out, padded, strict=True):
        places = [(i, j) for i in range(5) for j in range(5) if torch.equal(image, wide[:, i : i + 12, j : j + 10])]
        assert len(places) == 1
        seen[places[0]] += 1
    assert seen.min() > 30  # of 60 expected


@pytest.mark.slow
def test_a_rotation_is_torchvisions() -> None:
    from torchvision.transforms.v2 import functional as tv  # which imports the compiler

    x = images(count=4)
    out = run(x, KINDS["rotate"])
    draws = torch.rand(4, 11, generator=generator("cpu", "augment", 0, 0))
    for image, turned, chance in zip(x, out, draws, strict=True):
        degrees = float(2 * chance[3] - 1) * 30
        expected = tv.rotate(image, degrees, interpolation=tv.InterpolationMode.BILINEAR)
        torch.testing.assert_close(turned, expected, atol=1e-5, rtol=0)


def test_what_is_erased_is_one_black_rectangle_of_the_size_that_is_told() -> None:
    x = images() + 1
    gone = run(x, KINDS["erase"]).sum(1) == 0
    erased = gone.flatten(1).any(1)
    assert 0.45 < erased.float().mean() < 0.55
    for mask in gone[erased]:
        rows, columns = mask.any(1), mask.any(0)
        assert mask.sum() == rows.sum() * columns.sum()  # a rectangle
        assert mask[rows][:, columns].all()
    part = gone[erased].float().mean((1, 2))
    assert part.max() < 0.4 and 0.1 < part.mean() < 0.25


def test_jitter_of_a_grey_image_is_linear_in_it() -> None:
    x = images(1, 50)
    for image, out in zip(x.flatten(1), run(x, KINDS["jitter"]).flatten(1), strict=True):
        correlation = torch.corrcoef(torch.stack([image, out]))[0, 1]
        assert correlation > 0.99999
    assert 0.7 * 0.7 * x.std() < run(x, KINDS["jitter"]).std() < 1.3 * 1.3 * x.std()


@pytest.fixture(scope="module")
def digits() -> ResidentData:
    return SoloEngine(CPU).data(CNN_RUN)


@pytest.mark.parametrize("kind", [Run, GraphedRun])
def test_an_augmented_trial_resumes_as_if_never_stopped(kind: type[Run], digits: ResidentData) -> None:
    whole, cut = kind(CNN_RUN, digits, CPU), kind(CNN_RUN, digits, CPU)
    for _ in range(4):
        whole.train_epoch()
    for _ in range(2):
        cut.train_epoch()
    again = kind(CNN_RUN, digits, CPU, checkpoints.from_bytes(checkpoints.to_bytes(cut.checkpoint()), "test"))
    for _ in range(2):
        again.train_epoch()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])
    plain = kind(dataclasses.replace(CNN_RUN, augment=Augment()), digits, CPU)
    plain.train_epoch()
    assert plain.history[0].train_loss != whole.history[0].train_loss
    assert digits.train_x is plain.inputs  # nothing is copied without need


def test_a_table_cannot_be_augmented() -> None:
    config = dataclasses.replace(CNN_RUN, data="breast_cancer", model=MLP((8,), (0.0,)))
    parts = load_parts(info("breast_cancer"), Split())
    with pytest.raises(ModelError, match="augment: inputs must be images, got a table"):
        Run(config, resident(parts, config, CPU), CPU)


def test_a_part_of_the_rows_is_stratified_and_always_the_same() -> None:
    parts = load_parts(info("digits"), Split(0.25))
    config = dataclasses.replace(CNN_RUN, data_fraction=0.2, image_size=4)
    small = resident(parts, config, CPU)
    shares = torch.bincount(small.train_y) / torch.bincount(torch.from_numpy(parts.train.y))
    assert shares.min() > 0.18 and shares.max() < 0.22
    assert len(small.validation_y) == len(parts.validation.y)
    assert small.input_shape == (1, 4, 4) and small.validation_x.shape[1:] == (1, 4, 4)
    assert torch.equal(small.train_x, resident(parts, config, CPU).train_x)
    assert set(fraction(parts.train.y, 0.1, 0)) < set(fraction(parts.train.y, 0.2, 0))
    Run(config, small, CPU).train_epoch()
    assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict())), "trial") == config
