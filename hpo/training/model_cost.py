"""Costs of an untrained network: parameters and memory by counting, latency by measurement."""

import statistics
import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from hpo.config import EMA, SGD, RMSprop, SGDMomentum, TrialConfig
from hpo.constraints import Cost, Costs
from hpo.models import InputShape, build_model, parameter_count

WARM_UP, PASSES = 5, 30
_BYTES = 4
"""Bytes of a float32 number. Autocast keeps weights in float32; that its activations are smaller is ignored."""


def measure(
    config: TrialConfig, input_shape: InputShape, classes: int, device: torch.device, wanted: Iterable[Cost]
) -> Costs:
    """Return the wanted costs of an untrained network. Raises: ModelError where the inputs do not fit it."""
    costs: Costs = {}
    for name in wanted:
        match name:
            case "parameters":
                with torch.device("meta"):
                    costs[name] = parameter_count(build_model(config.model, input_shape, classes))
            case "memory_mb":
                costs[name] = memory_mb(config, input_shape, classes)
            case "latency_ms":
                costs[name] = latency_ms(config, input_shape, classes, device)
    return costs


def memory_mb(config: TrialConfig, input_shape: InputShape, classes: int) -> float:
    """Return an estimate of the memory of training in MB, without the data; nothing is allocated.

    It is the sum of parameters, gradients, optimizer state, averages, and the output of every layer for one batch (for
    one part of it with gradient accumulation), which the backward pass needs.
    """
    rows = -(-config.batch_size // config.accumulation)
    numbers = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal numbers
        numbers += output.numel()

    with torch.device("meta"):
        model = build_model(config.model, input_shape, classes)
        for module in model.modules():
            if not any(module.children()):
                module.register_forward_hook(count)
        batch = torch.empty(rows, *input_shape)
        model(batch)
    copies = {SGD: 2, SGDMomentum: 3, RMSprop: 3}.get(type(config.optimizer), 4)
    copies += isinstance(config.average, EMA)
    return (copies * parameter_count(model) + numbers + batch.numel()) * _BYTES / 1e6


@torch.inference_mode()
def latency_ms(config: TrialConfig, input_shape: InputShape, classes: int, device: torch.device) -> float:
    """Return the median milliseconds of a forward pass of one row on this device, in float32, in evaluation mode."""
    model = build_model(config.model, input_shape, classes, seed=0).to(device).eval()
    row = torch.zeros(1, *input_shape, device=device)
    milliseconds = []
    for i in range(WARM_UP + PASSES):
        _wait_for(device)
        start = time.perf_counter()
        model(row)
        _wait_for(device)
        if i >= WARM_UP:
            milliseconds.append(1000 * (time.perf_counter() - start))
    return statistics.median(milliseconds)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
