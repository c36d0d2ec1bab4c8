"""Everything that hpo uses of torch without torch promising it: private names, each used in this module alone.

torch may rename or remove them in any version, so pyproject.toml bounds torch from above, and
`tests/test_torch_compat.py` says which name is gone.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = [
    "PRIVATE_NAMES",
    "StorageLedger",
    "TorchDispatchMode",
    "allow_tf32",
    "copy_all",
    "fused_adam",
    "fused_sgd",
    "lerp",
    "plain_step",
    "rmsprop",
    "set_up_torch",
    "tree_leaves",
]

PRIVATE_NAMES: tuple[tuple[object, str], ...] = (
    (torch, "_fused_sgd_"),
    (torch, "_fused_adam_"),
    (torch, "_fused_adamw_"),
    (torch, "_foreach_add_"),
    (torch, "_foreach_mul_"),
    (torch, "_foreach_addcmul_"),
    (torch, "_foreach_sqrt"),
    (torch, "_foreach_addcdiv_"),
    (torch, "_foreach_lerp_"),
    (torch, "_foreach_copy_"),
    (torch.UntypedStorage, "_cdata"),
    (torch.utils._python_dispatch, "TorchDispatchMode"),
    (torch.utils._pytree, "tree_leaves"),
)
"""Owner and name of each private attribute of torch that this module uses."""
_CALLED_INSTEAD = "__dynamo_disable"
"""Where `torch._compile._disable_dynamo` (torch 2.1 to 2.15) caches the function to call instead of the wrapped one."""


def set_up_torch() -> None:
    """Keep torch's optimizers from importing torch's compiler: 1.7 s, for something that hpo never uses.

    Engines call it when they are made, and so does code that trains without an engine; further calls change nothing.
    torch wraps the methods of its optimizers so that the compiler leaves them alone, and imports the compiler for that
    when the first optimizer is made. The wrapper calls the function that is cached under `_CALLED_INSTEAD`, if there is
    one: here the plain method. In a version of torch without this wrapper, nothing changes.
    """
    for method in vars(Optimizer).values():
        plain = getattr(method, "__wrapped__", None)
        if plain is not None:
            plain.__dict__.setdefault(_CALLED_INSTEAD, plain)


def allow_tf32(*, allowed: bool) -> None:
    """Have a GPU round the factors of float32 products and convolutions to TF32, or not.

    torch also has newer names for these switches (`fp32_precision`), which must not be mixed with these.
    """
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def plain_step(optimizer: Optimizer) -> Callable[[Optimizer], object]:
    """Return an optimizer's step without torch's wrappers around it, to be called under `torch.no_grad`.

    The wrappers import the compiler too; they serve it, the profiler and step hooks, none of which hpo uses.
    """
    step: Callable[[Optimizer], object] = inspect.unwrap(type(optimizer).step)
    return step


def fused_sgd(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    momenta: Sequence[Tensor],
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    """Update parameters in place by one step of SGD: the kernel of `torch.optim.SGD(fused=True)`.

    `momenta`, zeros before the first step, are updated too; unused if `momentum` is 0.
    """
    torch._fused_sgd_(
        list(params),
        list(grads),
        list(momenta) if momentum else [],
        weight_decay=weight_decay,
        momentum=momentum,
        lr=lr,
        dampening=0.0,
        nesterov=nesterov,
        maximize=False,
        is_first_step=False,
    )


def fused_adam(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    step: Tensor,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> None:
    """Update parameters in place by one step of Adam, of AdamW if the weight decay is `decoupled`.

    These are the kernels of `torch.optim.Adam(fused=True)` and AdamW. `first` and `second` are the moments, which are
    updated too; `step` counts from 1: float32 [].
    """
    kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
    kernel(
        list(params),
        list(grads),
        list(first),
        list(second),
        [],
        [step] * len(params),
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=weight_decay,
        eps=eps,
        amsgrad=False,
        maximize=False,
    )


def rmsprop(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    squares: Sequence[Tensor],
    *,
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
) -> None:
    """Update parameters in place by one step of RMSprop, as `torch.optim.RMSprop(foreach=True)` does.

    `squares` are the running means of the squared gradients, which are updated too; gradients are overwritten.
    """
    p, g, v = list(params), list(grads), list(squares)
    if weight_decay:
        torch._foreach_add_(g, p, alpha=weight_decay)
    torch._foreach_mul_(v, alpha)
    torch._foreach_addcmul_(v, g, g, 1 - alpha)
    roots = torch._foreach_sqrt(v)
    torch._foreach_add_(roots, eps)
    torch._foreach_addcdiv_(p, g, roots, -lr)


def lerp(averages: Sequence[Tensor], values: Sequence[Tensor], weight: float) -> None:
    """Move averages in place towards values, by this share of the distance, as `torch.lerp` does one by one."""
    torch._foreach_lerp_(list(averages), list(values), weight)


def copy_all(targets: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copy each value to its target, in one call."""
    torch._foreach_copy_(list(targets), list(values))


class StorageLedger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, keeps one tensor of each storage that torch allocates; on the meta device that takes no memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tensors: dict[int, Tensor] = {}

    @property
    def total_bytes(self) -> int:
        """Bytes of all storages allocated so far."""
        return sum(tensor.untyped_storage().nbytes() for tensor in self._tensors.values())

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise torch imports its compiler in order to tell it to skip this class

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the operator and note the storages of its results."""
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._tensors.setdefault(value.untyped_storage()._cdata, value)
        return result
