"""Models: shapes, parameter counts from first principles, and initial weights from the seed alone."""

import dataclasses

import pytest
import torch
from torch import nn

from hpo.config import CNN, MLP
from hpo.errors import ModelError
from hpo.models import build_model, layer_products, parameter_count
from hpo.training.devices import work_per_layer


def test_an_mlp_has_the_weights_of_its_layers() -> None:
    model = build_model(MLP((128, 64), (0.3, 0.3), norm="batch"), (1, 28, 28), 10)
    linear = 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10
    assert parameter_count(model) == linear + 2 * 128 + 2 * 64
    assert sum(isinstance(m, nn.Dropout) for m in model.modules()) == 2


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "gelu", "tanh", "sigmoid"])
def test_every_norm_and_activation_builds(norm: str, activation: str) -> None:
    for config in (
        MLP((8, 4), (0.1, 0.0), activation=activation, norm=norm),  # type: ignore[arg-type]
        CNN((4, 8), (0.1, 0.0), activation=activation, norm=norm, head_width=16),  # type: ignore[arg-type]
    ):
        assert build_model(config, (1, 8, 8), 3)(torch.randn(5, 1, 8, 8)).shape == (5, 3)


@pytest.mark.parametrize(("head", "features"), [("average", 32), ("flatten", 32 * 7 * 7)])
def test_a_cnn_has_the_weights_of_its_stages_and_head(head: str, features: int) -> None:
    config = CNN((16, 32), (0.0, 0.0), convs=(2, 2), head=head, head_width=64, head_dropout=0.5)  # type: ignore[arg-type]
    model = build_model(config, (1, 28, 28), 10)
    convs = (9 * 1 * 16 + 16) + (9 * 16 * 16 + 16) + (9 * 16 * 32 + 32) + (9 * 32 * 32 + 32)
    assert parameter_count(model) == convs + features * 64 + 64 + 64 * 10 + 10
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, 10)


def test_tables_go_through_an_mlp() -> None:
    assert build_model(MLP((16,), (0.0,)), (30,), 2)(torch.randn(4, 30)).shape == (4, 2)


def test_initial_weights_follow_from_the_seed_and_leave_torchs_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, same, other = (build_model(MLP((8,), (0.0,)), (4,), 2, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[k], same[k]) for k in first)
    assert not torch.equal(first["output.weight"], other["output.weight"])


def test_a_cnn_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError, match=r"got depth=5 \(needs 32\) for 28x28 images. Lower depth to 4"):
        build_model(CNN((4,) * 5, (0.0,) * 5), (1, 28, 28), 10)
    build_model(CNN((4,) * 4, (0.0,) * 4), (1, 28, 28), 10)


RANDOM_IMAGES = torch.randn(2, 3, 32, 32)


def test_residual_layers_add_their_input_projected_where_the_width_changes() -> None:
    plain, residual = (MLP((8, 8, 4), (0.0,) * 3, residual=flag) for flag in (False, True))
    with_skip = build_model(residual, (6,), 2)
    assert parameter_count(with_skip) == parameter_count(build_model(plain, (6,), 2)) + 8 * 4  # 8 -> 8 needs none
    first, second, third = with_skip.hidden  # type: ignore[misc]
    x = torch.randn(5, 6)
    once = first(x)
    twice = once + torch.relu(second.body.linear(once))
    torch.testing.assert_close(second(once), twice)
    torch.testing.assert_close(third(twice), third.skip(twice) + torch.relu(third.body.linear(twice)))
    cnn = CNN((4, 4, 8), (0.1,) * 3, residual=True, norm="batch", convs=(1, 2, 1))
    more = parameter_count(build_model(cnn, (3, 32, 32), 2)) - parameter_count(
        build_model(dataclasses.replace(cnn, residual=False), (3, 32, 32), 2)
    )
    assert more == 4 * 8 and build_model(cnn, (3, 32, 32), 2)(RANDOM_IMAGES).shape == (2, 2)


def test_initial_weights_are_what_the_init_says() -> None:
    for init, spread in (("xavier", (2 / (400 + 300)) ** 0.5), ("kaiming", (2 / 400) ** 0.5)):
        model = build_model(MLP((300,), (0.0,), init=init), (400,), 2, seed=0)  # type: ignore[arg-type]
        layer = model.hidden[0].linear  # type: ignore[union-attr, index]
        assert float(layer.weight.detach().std()) == pytest.approx(spread, rel=0.02) and not layer.bias.any()
    turned = build_model(MLP((20,), (0.0,), init="orthogonal"), (20,), 2, seed=0).hidden[0].linear.weight  # type: ignore[union-attr, index]
    torch.testing.assert_close(turned @ turned.T, torch.eye(20), atol=1e-5, rtol=0)


def test_a_stage_need_not_pool_and_the_head_may_keep_a_grid() -> None:
    config = CNN((4, 8), (0.0, 0.0), pool=("none", "avg"), head="average", head_size=4)
    model = build_model(config, (3, 32, 32), 5)
    assert config.halvings == 1 and model(RANDOM_IMAGES).shape == (2, 5)
    assert parameter_count(model) == 9 * 3 * 4 + 4 + 9 * 4 * 8 + 8 + 8 * 16 * 5 + 5
    with pytest.raises(ValueError, match="convs and pool must have one entry per stage, got 2, 2, 2, 1"):
        CNN((4, 8), (0.0, 0.0), pool=("max",))


def counted_products(config: MLP | CNN, input_shape: tuple[int, ...], classes: int) -> list[int]:
    """Return the multiply-adds of each layer with weights, counted by hooks in a forward pass of one row."""
    products: list[int] = []

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        assert isinstance(module, nn.Linear | nn.Conv2d)
        products.append(output.numel() * module.weight[0].numel())

    model = build_model(config, input_shape, classes, seed=0).eval()
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(count)
    with torch.inference_mode():
        model(torch.zeros(1, *input_shape))
    return products


@pytest.mark.parametrize(
    ("config", "input_shape"),
    [
        (MLP((), ()), (9,)),
        (MLP((64, 32), (0.1, 0.0), norm="batch"), (30,)),
        (MLP((16, 16, 24, 16), (0.0,) * 4, residual=True), (1, 8, 8)),
        (CNN((8,), (0.0,)), (1, 28, 28)),
        (CNN((8, 8, 16), (0.1,) * 3, convs=(1, 2, 3), pool=("max", "none", "avg"), residual=True), (3, 13, 10)),
        (CNN((4, 12), (0.0, 0.0), kernel=5, head="flatten", head_width=20, head_dropout=0.1), (3, 15, 9)),
        (CNN((4, 6), (0.0, 0.0), head_size=3, norm="layer", residual=True), (1, 17, 17)),
    ],
)
def test_multiply_adds_by_arithmetic_are_those_of_a_forward_pass(
    config: MLP | CNN, input_shape: tuple[int, ...]
) -> None:
    assert sorted(layer_products(config, input_shape, 7)) == sorted(counted_products(config, input_shape, 7))
    work = work_per_layer(config, input_shape, 32)
    counted = counted_products(config, input_shape, 10)
    assert work == 32 * sum(counted) / len(counted)
