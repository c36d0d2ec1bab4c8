"""What a network costs before it is trained: parameters and memory by counting, latency by the clock."""

import statistics
import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from hpo.config import SGD, RMSprop, SGDMomentum, TrialConfig
from hpo.constraints import Cost, Costs
from hpo.models import InputShape, build_model, parameter_count

WARM_UP, PASSES = 5, 30
_BYTES = 4
"""Of a number in float32; autocast keeps weights so, and its smaller activations are not counted on."""


def measure(
    config: TrialConfig, input_shape: InputShape, classes: int, device: torch.device, wanted: Iterable[Cost]
) -> Costs:
    """Return the wanted costs of an untrained network. Raises: ModelError where the inputs do not fit it."""
    found: Costs = {}
    for name in wanted:
        match name:
            case "parameters":
                with torch.device("meta"):
                    found[name] = parameter_count(build_model(config.model, input_shape, classes))
            case "memory_mb":
                found[name] = memory_mb(config, input_shape, classes)
            case "latency_ms":
                found[name] = latency_ms(config, input_shape, classes, device)
    return found


def memory_mb(config: TrialConfig, input_shape: InputShape, classes: int) -> float:
    """Estimate the memory of training in MB, without the data: nothing is allocated for it.

    Parameters, their gradients and the optimizer's state, and the output of every layer for one batch (for one part
    of it, where it is trained in parts), as the backward pass wants them.
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
    return (copies * parameter_count(model) + numbers + batch.numel()) * _BYTES / 1e6


@torch.inference_mode()
def latency_ms(config: TrialConfig, input_shape: InputShape, classes: int, device: torch.device) -> float:
    """Return the median milliseconds that an untrained network takes for one row, on this device, in float32."""
    model = build_model(config.model, input_shape, classes, seed=0).to(device).eval()
    row = torch.zeros(1, *input_shape, device=device)
    taken = []
    for i in range(WARM_UP + PASSES):
        _wait_for(device)
        start = time.perf_counter()
        model(row)
        _wait_for(device)
        if i >= WARM_UP:
            taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
