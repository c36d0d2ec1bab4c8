"""From a config to a torch optimizer, fused where torch has a fused kernel for the device."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from hpo.config import SGD, Adam, AdamW, Optimizer, RMSprop, SGDMomentum


def build_optimizer(
    config: Optimizer, parameters: Iterable[Tensor], device: torch.device, lr: Tensor | float | None = None
) -> torch.optim.Optimizer:
    """Return a config's optimizer. With `lr` as a tensor, a CUDA graph of its step reads the rate from the tensor."""
    captured = isinstance(lr, Tensor) and device.type == "cuda"
    common: dict[str, Any] = {"lr": config.lr if lr is None else lr, "weight_decay": config.weight_decay}
    fused: dict[str, Any] = {"fused": device.type in ("cpu", "cuda")}
    match config:
        case SGD():
            return torch.optim.SGD(parameters, **common, **fused)
        case SGDMomentum():
            return torch.optim.SGD(parameters, **common, **fused, momentum=config.momentum, nesterov=config.nesterov)
        case Adam() | AdamW():
            kind = torch.optim.Adam if isinstance(config, Adam) else torch.optim.AdamW
            betas = (config.beta1, config.beta2)
            return kind(parameters, **common, **fused, betas=betas, eps=config.eps, capturable=captured)
        case RMSprop():
            return torch.optim.RMSprop(parameters, **common, alpha=config.alpha, eps=config.eps, capturable=captured)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of an optimizer as named tensors: 'optimizer.<parameter>.<name>'."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{index}.{name}": value
        for index, entries in state.items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore the state that `optimizer_tensors` returned; hyperparameters remain the same objects."""
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, value in tensors.items():
        _, index, name = key.split(".", 2)
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            # Fused kernels iterate over state and parameter together, so both need the same memory layout.
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[name] = value
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for group, lr in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = lr  # load_state_dict sets a copy, whose changes a graph would not read
