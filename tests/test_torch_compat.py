"""What hpo uses of torch without torch promising it: if a version of torch lacks it, a test here names it."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from hpo.training import torch_compat
from hpo.training.torch_compat import PRIVATE_NAMES, StorageLedger, fused_adam, fused_sgd, lerp, rmsprop


@pytest.mark.parametrize(("owner", "name"), PRIVATE_NAMES, ids=[name for _, name in PRIVATE_NAMES])
def test_this_torch_has_each_private_name(owner: object, name: str) -> None:
    assert hasattr(owner, name), f"torch {torch.__version__} has no {name}: adapt hpo.training.torch_compat"


def test_optimizers_call_what_is_cached_under_the_compilers_name() -> None:
    wrapped = [m for m in vars(torch.optim.Optimizer).values() if hasattr(m, "__wrapped__")]
    name = "__dynamo_disable"
    for method in wrapped:  # a test that made an optimizer by itself has had torch cache the compiler's function
        vars(method.__wrapped__).pop(name, None)
    torch_compat.set_up_torch()
    assert wrapped, f"torch {torch.__version__} no longer wraps its optimizers' methods: remove set_up_torch"
    for method in wrapped:
        assert method.__wrapped__.__dict__[name] is method.__wrapped__, f"{method.__name__}: {name} holds another"


@pytest.mark.slow
def test_training_with_a_made_engine_imports_no_compiler() -> None:
    program = """
import sys, numpy as np
from hpo.config import MLP, AdamW, TrialConfig
from hpo.runner.worker import make_engine
for name in ("solo", "packed"):
    engine = make_engine(name, "cpu")
    engine.admit(0, TrialConfig("digits", MLP((8,), (0.1,)), AdamW(0.01), batch_size=64, epochs=1))
    [result] = engine.step().values()
    assert result.epoch == 1
sys.exit("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "torch's compiler was imported: see hpo.training.torch_compat"


def tensors() -> tuple[list[Tensor], list[Tensor]]:
    """Return parameters and their gradients."""
    source = torch.Generator().manual_seed(0)
    params, grads = ([torch.randn(n, 3, generator=source) for n in (2, 5)] for _ in range(2))
    return params, grads


def of_torch(kind: type[torch.optim.Optimizer], steps: int, **options: object) -> list[Tensor]:
    """Return the parameters after steps of torch's own optimizer on the same gradients."""
    params, grads = tensors()
    optimizer = kind(params, **options)  # type: ignore[arg-type]
    for _ in range(steps):
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad.clone()
        optimizer.step()
    return params


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_fused_sgd_is_that_of_torch(momentum: float, nesterov: bool) -> None:
    params, grads = tensors()
    momenta = [torch.zeros_like(param) for param in params]
    for _ in range(3):
        fused_sgd(params, grads, momenta, lr=0.1, momentum=momentum, nesterov=nesterov, weight_decay=0.01)
    options = {"lr": 0.1, "momentum": momentum, "nesterov": nesterov, "weight_decay": 0.01, "fused": True}
    torch.testing.assert_close(params, of_torch(torch.optim.SGD, 3, **options))


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_fused_adam_is_that_of_torch(kind: type[torch.optim.Optimizer]) -> None:
    params, grads = tensors()
    first, second = ([torch.zeros_like(param) for param in params] for _ in range(2))
    options = {"lr": 0.1, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1}
    for step in range(1, 4):
        count = torch.tensor(float(step))
        fused_adam(params, grads, first, second, count, **options, decoupled=kind is torch.optim.AdamW)  # type: ignore[arg-type]
    torch.testing.assert_close(params, of_torch(kind, 3, **options, fused=True))


def test_rmsprop_is_that_of_torch() -> None:
    params, grads = tensors()
    squares = [torch.zeros_like(param) for param in params]
    options = {"lr": 0.1, "alpha": 0.9, "eps": 1e-6, "weight_decay": 0.1}
    for _ in range(3):
        rmsprop(params, [grad.clone() for grad in grads], squares, **options)
    torch.testing.assert_close(params, of_torch(torch.optim.RMSprop, 3, **options))


def test_lerp_is_that_of_torch() -> None:
    values, averages = tensors()
    expected = [average.lerp(value, 0.3) for average, value in zip(averages, values, strict=True)]
    lerp(averages, values, 0.3)
    torch.testing.assert_close(averages, expected, rtol=0, atol=0)


def test_a_ledger_counts_each_storage_once() -> None:
    with StorageLedger() as ledger, torch.device("meta"):
        x = torch.empty(10, 10)
        x.view(100).add_(1)
        _ = x + 1
    assert ledger.total_bytes == 800
