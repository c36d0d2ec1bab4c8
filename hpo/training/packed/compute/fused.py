"""Whether the steps of a lane are taken with kernels of Triton: where these compute what torch's do.

Triton comes with torch on Linux. Before a program's first step, its step is taken both ways from the same state and
compared; once per process for each kind of program. Where a kernel does not compile or something differs, torch's
kernels are used. `HPO_TRITON=0` does not try.
"""

import importlib
import logging
import os
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from hpo.training.cuda_graph import copy, is_usable
from hpo.training.engine import DeviceUnusable

SWITCH = "HPO_TRITON"
"""Environment variable; `0` uses torch's kernels alone."""
TOLERANCE = 5e-3
"""Largest share of a slot's change in a tensor by which both ways may differ, rounding of its values aside. In a small
network one unit that rounding takes to the other side of ReLU's 0 is a few thousandths of the gradient."""

_log = logging.getLogger(__name__)
_verdicts: dict[Hashable, str] = {}
"""For each kind of program why Triton is not used, empty where it is."""


class Way(NamedTuple):
    """A way to take the step at the counter."""

    compute_gradients: Callable[[], None]
    """Writes gradients and logits, and updates the running statistics."""
    update_weights: Callable[[], None]
    """Updates parameters, moments and averages by the gradients."""


def wanted(device: torch.device) -> bool:
    """Return whether to try Triton on a device."""
    return device.type == "cuda" and os.environ.get(SWITCH) != "0" and _is_installed()


@cache
def _is_installed() -> bool:
    try:
        importlib.import_module("triton")
    except ModuleNotFoundError:
        return False
    except ImportError as error:
        _log.warning("lanes are trained without Triton, by torch's kernels: %s", error)
        return False
    return True


def agrees(kind: Hashable, fused: Way, plain: Way, state: Sequence[Tensor], results: Sequence[Tensor]) -> bool:
    """Return whether the fused way of a kind of program does the same as the plain one, and say why if it does not.

    `state` is what a step changes, `results` its gradients and logits: [S, ...], but for the counter. All stay as they
    are.
    Raises: torch.OutOfMemoryError; DeviceUnusable if the device is unusable after a failure.
    """
    if kind not in _verdicts:
        _verdicts[kind] = reason = _difference(fused, plain, state, results)
        if reason:
            _log.warning("lanes are trained without Triton, by torch's kernels: %s", reason)
    return not _verdicts[kind]


def _difference(fused: Way, plain: Way, state: Sequence[Tensor], results: Sequence[Tensor]) -> str:
    changing = [*state, *results]
    start = [tensor.clone() for tensor in changing]
    try:
        reason = _compared(fused, plain, state, results)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of Triton, its compilers, or the device
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if not is_usable(changing[0].device):
            rule = f"{changing[0].device}: must be usable after a kernel of Triton failed ({reason})"
            raise DeviceUnusable(f"{rule}, got an error. Start again with {SWITCH}=0.") from error
    copy(changing, start)
    return reason


def _compared(fused: Way, plain: Way, state: Sequence[Tensor], results: Sequence[Tensor]) -> str:
    """Take the step both ways; return in what they differ, empty for nothing."""
    changing = [*state, *results]
    start = [tensor.clone() for tensor in changing]
    plain.compute_gradients()
    computed = [tensor.clone() for tensor in changing]
    plain.update_weights()
    updated = [tensor.clone() for tensor in state]
    copy(changing, start)
    fused.compute_gradients()
    if not _all_the_same(start, computed, changing):
        return "they compute other gradients"
    # From common gradients: of those that are rounding alone, some optimizers make whole steps.
    copy(changing, computed)
    fused.update_weights()
    return "" if _all_the_same(computed[: len(state)], updated, state) else "they update otherwise"


def _all_the_same(before: Sequence[Tensor], plain: Sequence[Tensor], fused: Sequence[Tensor]) -> bool:
    return all(_the_same(*tensors) for tensors in zip(before, plain, fused, strict=True))


def _the_same(before: Tensor, plain: Tensor, fused: Tensor) -> bool:
    """Return whether both ways changed each slot of a tensor in the same way, but for rounding."""
    if not plain.is_floating_point():
        return torch.equal(plain, fused)

    def sums(values: Tensor) -> Tensor:
        return values.flatten(1).abs().sum(1)

    differing = sums(torch.where((plain == fused) | (plain.isnan() & fused.isnan()), 0, plain - fused))
    moved = sums(torch.where(plain == before, 0, plain - before).nan_to_num())
    # A weight may change by less than it is rounded.
    rounding = sums(plain.nan_to_num()) * torch.finfo(plain.dtype).eps
    return bool((differing <= TOLERANCE * moved + rounding).all())
