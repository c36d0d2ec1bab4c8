"""Learning-rate schedules as functions of the step: nothing to keep, nothing to restore."""

import math
from collections.abc import Sequence

from hpo.config import Cosine, Exponential, OneCycle, Plateau, Schedule, StepDecay, WarmupCosine

# torch.optim.lr_scheduler.OneCycleLR's defaults: start at lr / 25, end at the start / 1e4.
START, END = 1 / 25, 1 / 25 / 1e4


def lr_factor(schedule: Schedule, step: int, steps: int, losses: Sequence[float] = ()) -> float:
    """Return what the learning rate is multiplied by at a step (from 0) of a training of `steps` steps.

    `losses` are the validation losses of the epochs so far.
    """
    match schedule:
        case Cosine():
            return schedule.floor + (1 - schedule.floor) * _half_cosine(step / steps)
        case OneCycle():
            peak = schedule.warmup * steps - 1
            last = steps - 1
            if step <= peak:
                return START + (1 - START) * (1 - _half_cosine(step / peak if peak > 0 else 1.0))
            return END + (1 - END) * _half_cosine((step - peak) / (last - peak) if last > peak else 1.0)
        case StepDecay():
            return float(schedule.gamma ** (step * schedule.parts // steps))
        case Exponential():
            return float(schedule.final ** (step / max(1, steps - 1)))
        case WarmupCosine():
            rising = schedule.warmup * steps
            if step < rising:
                return (step + 1) / (rising + 1)
            return _half_cosine((step - rising) / (steps - rising))
        case Plateau():
            return float(schedule.gamma ** _plateaus(losses, schedule.patience))
    return 1.0


def _plateaus(losses: Sequence[float], patience: int) -> int:
    """Return how often a loss has stood still for more than `patience` epochs; torch's threshold of 1e-4."""
    best, still, count = math.inf, 0, 0
    for loss in losses:
        if loss < best * (1 - 1e-4):
            best, still = loss, 0
        else:
            still += 1
            if still > patience:
                count, still = count + 1, 0
    return count


def _half_cosine(progress: float) -> float:
    """Fall from 1 at progress 0 to 0 at progress 1."""
    return (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2
