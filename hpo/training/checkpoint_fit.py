"""Whether a checkpoint can be a state of its trial's training: it may come from others, and name any tensors."""

import math
from collections.abc import Iterator

import torch
from torch import nn

from hpo.config import EMA, Optimizer
from hpo.text import one_line
from hpo.training.engine import Checkpoint
from hpo.training.optimizers import build_optimizer, optimizer_tensors

Shape = tuple[int, ...]


def check_fit(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Check history, names and shapes of a checkpoint for a network of its config. Raises: ValueError."""
    config, history = checkpoint.config, checkpoint.history
    epochs = [result.epoch for result in history]
    if epochs != list(range(1, len(epochs) + 1)) or len(epochs) > config.epochs:
        raise ValueError(f"its epochs must be 1, 2, ... up to {config.epochs}, got others")
    scores = [value for r in history for value in (r.validation_accuracy, r.validation_loss, r.train_loss, r.seconds)]
    if any(math.isnan(score) for score in scores) or any(result.last for result in history[:-1]):
        raise ValueError("its scores must be numbers, up to the training's end, got others")
    shapes = {name: array.shape for name, array in checkpoint.tensors.items()}
    possible, needed = dict(_possible(checkpoint, model)), set(_needed(checkpoint, model))
    for name, shape in shapes.items():
        if possible.get(name) != shape:
            raise ValueError(f"it must hold this network's tensors, got {one_line(name)[:80]!r} {list(shape)}")
    if missing := sorted(needed - shapes.keys()):
        raise ValueError(f"it must hold this network's tensors, got none named {missing[0]!r}")


def _possible(checkpoint: Checkpoint, model: nn.Module) -> Iterator[tuple[str, Shape]]:
    """Yield name and shape of every tensor that there can be."""
    for name, value in model.state_dict().items():
        for group in ("model", "best", "average"):
            yield f"{group}.{name}", tuple(value.shape)
    moments = _moments(checkpoint.config.optimizer)
    for index, parameter in enumerate(model.parameters()):
        for name, like_parameter in moments.items():
            yield f"optimizer.{index}.{name}", tuple(parameter.shape) if like_parameter else ()


def _needed(checkpoint: Checkpoint, model: nn.Module) -> Iterator[str]:
    """Yield the name of every tensor that there must be."""
    config, weights = checkpoint.config, model.state_dict()
    ended = bool(checkpoint.history) and checkpoint.history[-1].last
    yield from (f"model.{name}" for name in weights)
    if any(name.startswith("best.") for name in checkpoint.tensors):
        yield from (f"best.{name}" for name in weights)
    if isinstance(config.average, EMA) and not ended:
        yield from (f"average.{name}" for name, value in weights.items() if value.is_floating_point())
    if (
        checkpoint.history and config.model.family != "python"
    ):  # which may have parameters without gradients, and so without moments
        count = sum(1 for _ in model.parameters())
        yield from (f"optimizer.{index}.{name}" for index in range(count) for name in _moments(config.optimizer))


def _moments(optimizer: Optimizer) -> dict[str, bool]:
    """Return the names of what an optimizer keeps for a parameter, and whether it has the parameter's shape."""
    parameter = torch.zeros(2, 3, requires_grad=True)
    parameter.grad = torch.zeros(2, 3)
    built = build_optimizer(optimizer, [parameter], parameter.device)
    built.step()
    tensors = optimizer_tensors(built)
    return {name.split(".", 2)[2]: value.shape == parameter.shape for name, value in tensors.items()}
