"""Learning-rate schedules over many steps at once: the functions of `hpo.training.schedules` on arrays.

A lane needs the rates of all its trials before each epoch; one by one that takes longer than the epoch on a GPU.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hpo.config import Constant, Cosine, Exponential, OneCycle, Plateau, Schedule, StepDecay, WarmupCosine
from hpo.training.schedules import arguments_of, lr_factor

Floats = NDArray[np.float64]


def lr_factors(schedule: Schedule, first: int, count: int, steps: int, losses: Sequence[float] = ()) -> Floats:
    """Return the factors of the learning rate at `count` steps from `first` on: as `lr_factor`, up to rounding."""
    if isinstance(schedule, Constant | Plateau):  # whose factor is the same in a whole epoch
        return np.full(count, lr_factor(schedule, first, steps, losses))
    return _FACTORS[type(schedule)](np.arange(first, first + count, dtype=np.float64), steps, **arguments_of(schedule))


def _half_cosine(progress: Floats) -> Floats:
    return (1 + np.cos(np.pi * np.clip(progress, 0.0, 1.0))) / 2


def _cosine(step: Floats, steps: int, *, floor: float) -> Floats:
    return floor + (1 - floor) * _half_cosine(step / steps)


def _one_cycle(step: Floats, steps: int, *, warmup: float) -> Floats:
    start, end = 1 / 25, 1 / 25 / 1e4
    peak, last = warmup * steps - 1, steps - 1
    rising = start + (1 - start) * (1 - _half_cosine(step / peak if peak > 0 else np.ones_like(step)))
    falling = end + (1 - end) * _half_cosine((step - peak) / (last - peak) if last > peak else np.ones_like(step))
    return np.where(step <= peak, rising, falling)


def _step_decay(step: Floats, steps: int, *, parts: int, gamma: float) -> Floats:
    powers: Floats = gamma ** (step * parts // steps)
    return powers


def _exponential(step: Floats, steps: int, *, final: float) -> Floats:
    powers: Floats = final ** (step / max(1, steps - 1))
    return powers


def _warmup_cosine(step: Floats, steps: int, *, warmup: float) -> Floats:
    rising = warmup * steps
    falling = _half_cosine((step - rising) / (steps - rising)) if rising < steps else np.zeros_like(step)
    return np.where(step < rising, (step + 1) / (rising + 1), falling)


_FACTORS: dict[type[Schedule], Callable[..., Floats]] = {
    Cosine: _cosine,
    OneCycle: _one_cycle,
    StepDecay: _step_decay,
    Exponential: _exponential,
    WarmupCosine: _warmup_cosine,
}
