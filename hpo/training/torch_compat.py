"""A worker's start without torch's compiler, which takes 1.7 s to import and is never used here."""

import inspect
from collections.abc import Callable

from torch.optim import Optimizer


def have_optimizers_spare_the_compiler() -> None:
    """Have the methods of torch's optimizers be called as they are.

    torch wraps them so that its compiler leaves them alone, and to say so imports the compiler when the first
    optimizer is made (`torch._compile._disable_dynamo`, torch 2.1 to 2.15). The wrapper looks under this name first
    for what to call. In a torch that does otherwise nothing changes.
    """
    for method in vars(Optimizer).values():
        plain = getattr(method, "__wrapped__", None)
        if plain is not None:
            plain.__dict__.setdefault("__dynamo_disable", plain)


def plain_step(optimizer: Optimizer) -> Callable[[Optimizer], object]:
    """Return an optimizer's step without what torch wraps around it, for use under `torch.no_grad`.

    The wrappers import the compiler too, and serve it, the profiler and hooks, of which there are none.
    """
    step: Callable[[Optimizer], object] = inspect.unwrap(type(optimizer).step)
    return step
