"""Averaged weights: how much each step counts, and the averages of one network.

`ema_weight` depends on nothing but `math`: an exported script contains its source (`hpo.results.script`).
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpo.training.torch_compat import lerp


def ema_weight(horizon: float, step: int, steps: int) -> float:
    """Return how far an exponential moving average moves towards the value after a step, counted from 0: 0 to 1.

    `horizon` is in epochs of `steps` steps. With decay = exp(-1 / (horizon * steps)), the average is the sum of
    decay^age * value over all values so far, divided by the sum of decay^age: Adam's bias correction (Kingma and Ba,
    2015, arXiv 1412.6980), by which the average starts at the first value.
    """
    rate = 1 / horizon / steps
    return math.expm1(-rate) / math.expm1(-(step + 1) * rate)


def ema_weights(horizons: NDArray[np.float64], done: NDArray[np.int64], steps: int) -> NDArray[np.float64]:
    """Return what `ema_weight` returns for each step of an epoch and each of some trials: [steps, trials].

    `horizons` are theirs, 0 for a trial without an average, whose weights are 0; before the epoch each had taken
    `done` steps.
    """
    has = horizons > 0
    rates = 1 / np.where(has, horizons, 1.0) / steps
    counts = done + 1 + np.arange(steps)[:, None]
    return np.where(has, np.expm1(-rates) / np.expm1(-counts * rates), 0.0)


class WeightAverage:
    """Exponential moving averages of a network's weights and buffers, as far as these are not whole numbers."""

    def __init__(self, model: nn.Module, horizon: float, steps: int, *, replaced: bool) -> None:
        """Start with the network's initial weights, which do not count once there was a step.

        `horizon` is in epochs of `steps` steps. `replaced` says that the network's code may put other tensors in the
        place of its buffers, as code of the user's own does.
        """
        self.horizon, self.steps = horizon, steps
        self._model, self._replaced = model, replaced
        values = _averaged(model)
        self._known = list(values.values())
        self.tensors = {name: value.detach().clone() for name, value in values.items()}
        """The averages, by the names of the network's state dict."""

    def update(self, step: int) -> None:
        """Add the network's weights after a step, counted from 0 over all epochs."""
        lerp(list(self.tensors.values()), self._current(), ema_weight(self.horizon, step, self.steps))

    def update_by(self, weight: Tensor) -> None:
        """Add the network's weights by what `ema_weight` returns, in a tensor [] that a CUDA graph can read."""
        for average, value in zip(self.tensors.values(), self._current(), strict=True):
            average.lerp_(value, weight.to(average.dtype))

    def weights(self, first_step: int) -> NDArray[np.float64]:
        """Return what `ema_weight` returns for each step of an epoch, whose first step is counted over all epochs."""
        return ema_weights(np.array([self.horizon]), np.array([first_step]), self.steps)[:, 0]

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the averages from a copy of `tensors`."""
        for name, average in self.tensors.items():
            average.copy_(tensors[name])

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the averages, and its own weights again at the end."""
        with torch.no_grad():
            current = self._current()
            kept = [value.clone() for value in current]
        try:
            with torch.no_grad():
                _copy(current, self.tensors.values())
            yield
        finally:
            with torch.no_grad():
                _copy(current, kept)

    def _current(self) -> list[Tensor]:
        """Return the network's tensors, which share its memory."""
        return list(_averaged(self._model).values()) if self._replaced else self._known


def _averaged(model: nn.Module) -> dict[str, Tensor]:
    """Return what is averaged of a network's state dict: everything but counters, such as that of batch norm."""
    state: dict[str, Tensor] = model.state_dict()
    return {name: value for name, value in state.items() if value.is_floating_point() or value.is_complex()}


def _copy(to: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    for target, value in zip(to, values, strict=True):
        target.copy_(value)
