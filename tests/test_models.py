"""Models: shapes, parameter counts from first principles, and initial weights from the seed alone."""

import pytest
import torch
from torch import nn

from hpo.config import CNN, MLP
from hpo.errors import ModelError
from hpo.models import build_model, parameter_count


def test_an_mlp_has_the_weights_of_its_layers():
    model = build_model(MLP((128, 64), (0.3, 0.3), norm="batch"), (1, 28, 28), 10)
    linear = 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10
    assert parameter_count(model) == linear + 2 * 128 + 2 * 64
    assert sum(isinstance(m, nn.Dropout) for m in model.modules()) == 2


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "gelu", "tanh", "sigmoid"])
def test_every_norm_and_activation_builds(norm: str, activation: str):
    for config in (
        MLP((8, 4), (0.1, 0.0), activation=activation, norm=norm),  # type: ignore[arg-type]
        CNN((4, 8), (0.1, 0.0), activation=activation, norm=norm, head_width=16),  # type: ignore[arg-type]
    ):
        assert build_model(config, (1, 8, 8), 3)(torch.randn(5, 1, 8, 8)).shape == (5, 3)


@pytest.mark.parametrize(("head", "features"), [("average", 32), ("flatten", 32 * 7 * 7)])
def test_a_cnn_has_the_weights_of_its_stages_and_head(head: str, features: int):
    config = CNN((16, 32), (0.0, 0.0), convs=2, head=head, head_width=64, head_dropout=0.5)  # type: ignore[arg-type]
    model = build_model(config, (1, 28, 28), 10)
    convs = (9 * 1 * 16 + 16) + (9 * 16 * 16 + 16) + (9 * 16 * 32 + 32) + (9 * 32 * 32 + 32)
    assert parameter_count(model) == convs + features * 64 + 64 + 64 * 10 + 10
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, 10)


def test_tables_go_through_an_mlp():
    assert build_model(MLP((16,), (0.0,)), (30,), 2)(torch.randn(4, 30)).shape == (4, 2)


def test_initial_weights_follow_from_the_seed_and_leave_torchs_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, same, other = (build_model(MLP((8,), (0.0,)), (4,), 2, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[k], same[k]) for k in first)
    assert not torch.equal(first["output.weight"], other["output.weight"])


def test_a_cnn_that_does_not_fit_is_refused():
    with pytest.raises(ModelError, match=r"got depth=5 \(needs 32\) for 28x28 images. Lower depth to 4"):
        build_model(CNN((4,) * 5, (0.0,) * 5), (1, 28, 28), 10)
    build_model(CNN((4,) * 4, (0.0,) * 4), (1, 28, 28), 10)
