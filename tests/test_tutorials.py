"""The baselines of the spaces are the tutorials' own networks: their parameters and shapes, counted by hand."""

import pytest
import torch
from torch import nn

from hpo import data, documents
from hpo.config import AdamW, OneCycle, TrialConfig
from hpo.models import build_model, parameter_count
from hpo.space import load_space
from hpo.suggesters import FixedSuggester

MLP_128_64 = (784 * 128 + 128) + (128 * 64 + 64) + (64 * 10 + 10)
MLP_256_128 = (784 * 256 + 256) + (256 * 128 + 128) + (128 * 10 + 10)
CNN_FASHION = (9 * 1 * 32 + 32) + (9 * 32 * 64 + 64) + (9 * 64 * 128 + 128) + 2 * (32 + 64 + 128)
CNN_FASHION_HEAD = (128 * 64 + 64) + (64 * 10 + 10)
CNN_DIGITS = (9 * 1 * 32 + 32) + (9 * 32 * 64 + 64) + (9 * 64 * 128 + 128)
CNN_DIGITS_HEAD = (128 * 4 * 4 * 256 + 256) + (256 * 10 + 10)
CIFAR_CONVS = [(3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
CNN_CIFAR = sum(9 * a * b + b + 2 * b for a, b in CIFAR_CONVS)
CNN_CIFAR_HEAD = (128 * 4 * 4 * 256 + 256) + (256 * 10 + 10)


def baseline(space: str, start: str) -> TrialConfig:
    found = load_space(space)
    [chosen] = [b for b in found.baselines if b.name.startswith(start)]
    return found.draw(FixedSuggester(chosen.values()), seed=0)


@pytest.mark.parametrize(
    ("space", "start", "parameters"),
    [
        ("ann_fashion", "128-64, plain", MLP_128_64),
        ("ann_fashion", "128-64, batch norm, dropout 0.3", MLP_128_64 + 2 * (128 + 64)),
        ("ann_mnist", "128-64, plain", MLP_128_64),
        ("ann_mnist", "256-128, dropout", MLP_256_128),
        ("cnn_fashion", "32-64-128, batch norm", CNN_FASHION + CNN_FASHION_HEAD),
        ("cnn_kmnist", "32-64-128, batch norm", CNN_FASHION + CNN_FASHION_HEAD),
        ("cnn_mnist", "32-64-pool-128-adaptive(4)", CNN_DIGITS + CNN_DIGITS_HEAD),
        ("cnn_cifar10", "32-64-128 x2", CNN_CIFAR + CNN_CIFAR_HEAD),
    ],
)
def test_a_baseline_is_the_tutorials_network(space: str, start: str, parameters: int) -> None:
    config = baseline(space, start)
    shape = data.info(config.data).input_shape
    model = build_model(config.model, shape, 10)
    assert parameter_count(model) == parameters
    assert model.eval()(torch.randn(2, *shape)).shape == (2, 10)


def test_the_cifar_network_drops_out_and_is_trained_as_the_tutorial_does() -> None:
    config = baseline("cnn_cifar10", "32-64-128 x2")
    model = build_model(config.model, (3, 32, 32), 10)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout2d | nn.Dropout)] == [0.2, 0.3, 0.4, 0.5]
    assert isinstance(config.optimizer, AdamW) and isinstance(config.schedule, OneCycle)


def test_the_digit_networks_grid_before_its_head_is_four_by_four() -> None:
    model = build_model(baseline("cnn_mnist", "32-64-pool").model, (1, 28, 28), 10)
    stages = model.stages(torch.randn(2, 1, 28, 28))  # type: ignore[operator]
    assert stages.shape == (2, 128, 14, 14)
    assert model.head.average(stages).shape == (2, 128, 4, 4)  # type: ignore[union-attr, operator]
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.4]


def test_every_space_has_a_baseline() -> None:
    for name in documents.known("space"):
        assert load_space(name).baselines, name
