"""Which device trains, and in which precision."""

import contextlib
import os
from collections.abc import Iterator
from typing import Literal

import torch

from hpo.config import CNN, MLP, Network, Precision, PythonNetwork
from hpo.errors import UsageError
from hpo.models import InputShape, layer_products
from hpo.training.torch_compat import allow_tf32, set_up_torch


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of this name; `auto` takes CUDA, then MPS, then the CPU. Raises: UsageError.

    `cuda:MIG-...` is an instance of a GPU that is split; the process then sees no other one.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind == "cuda" and index.startswith("MIG-") and not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        os.environ["CUDA_VISIBLE_DEVICES"] = index
        index = "0"
    if kind == "cpu" and not index:
        return torch.device("cpu")
    if kind == "mps" and not index and torch.backends.mps.is_available():
        return torch.device("mps")
    if kind == "cuda" and index.isdecimal() | (not index) and int(index or 0) < torch.cuda.device_count():
        return torch.device("cuda", int(index or 0))
    raise UsageError(f'No device named "{name}" on this machine. Known: {", ".join(known_devices())}.')


def known_devices() -> list[str]:
    """Return the device names that `choose_device` accepts on this machine."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["auto", "cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]


def describe(device: torch.device) -> str:
    """Return a device's name to display: 'cpu', 'NVIDIA A100'."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def use_one_thread() -> None:
    """Limit torch to one CPU thread: several workers share the cores, and results do not depend on their number.

    Two threads on a busy machine were measured up to 40 times slower than one.
    """
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


def set_up_device(device: torch.device) -> None:
    """Make a device the current one of this process, and its float32 a true float32; further calls change nothing.

    Without the first, CUDA graphs would be captured, and memory be counted, on another GPU than the one that trains.
    Without the second, cuDNN rounds the factors of convolutions to the ten bits of TF32. To be called wherever
    something is trained; it also keeps torch's compiler from being imported.
    """
    set_up_torch()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    allow_tf32(allowed=False)


@contextlib.contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Have the products of float32 that are launched, or recorded, inside computed in a precision: fp32 or tf32.

    It is a switch of the whole process, so nothing else may be launched meanwhile.
    """
    if precision != "tf32":
        yield
        return
    allow_tf32(allowed=True)
    try:
        yield
    finally:
        allow_tf32(allowed=False)


def resolve_precision(
    wanted: Precision, network: Network, input_shape: InputShape, batch_size: int, device: torch.device
) -> Precision:
    """Return the precision for a network on a device: what is not `auto` as it is, but fp32 for TF32 without TF32.

    The rule depends on shapes and hardware alone, so that a config is always trained in the same way. On a CPU, bf16
    autocast is used from the amount of work on above which `benchmarks/precision.py` measured it faster for all shapes.
    On other devices it was not measured, so they take fp32. `auto` is never TF32.
    """
    if wanted == "tf32":
        return "tf32" if _has_tf32(device) else "fp32"
    if wanted != "auto":
        return wanted
    if isinstance(network, PythonNetwork):
        return "fp32"
    unit = _bf16_unit_of_cpu() if device.type == "cpu" else None
    if unit is None:
        return "fp32"
    least = _BF16_FASTER_CNN[unit] if isinstance(network, CNN) else _BF16_FASTER_MLP[unit]
    return "bf16" if work_per_layer(network, input_shape, batch_size) >= least else "fp32"


_BF16Unit = Literal["amx", "avx512"]
_BF16_FASTER_MLP: dict[_BF16Unit, float] = {"amx": 1.8e7, "avx512": 3.5e6}
_BF16_FASTER_CNN: dict[_BF16Unit, float] = {"amx": 1.4e7, "avx512": 1.4e7}
"""Multiply-adds per layer and batch from which on bf16 saves more time than autocast takes, by the CPU's unit for them:
measured on an Intel Xeon with AMX, and on an AMD EPYC. The Xeon's fp32 is the faster one of the two."""


def work_per_layer(network: MLP | CNN, input_shape: InputShape, batch_size: int) -> float:
    """Return the mean number of multiply-adds of a layer with weights in one forward pass of a batch."""
    products = layer_products(network, input_shape, classes=10)
    return batch_size * sum(products) / len(products)


def resumed_precision(kept: str, device: torch.device) -> Precision:
    """Return the precision in which a checkpoint's training goes on."""
    if kept == "tf32" and _has_tf32(device):
        return "tf32"
    return "bf16" if kept == "bf16" else "fp32"


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _bf16_unit_of_cpu() -> _BF16Unit | None:
    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("amx_bf16"):
        return "amx"
    return "avx512" if capabilities.get("avx512_bf16") else None
