"""Learning-rate schedules as functions of the step: nothing to keep, nothing to restore."""

import math

from hpo.config import Cosine, OneCycle, Schedule

# torch.optim.lr_scheduler.OneCycleLR's defaults: start at lr / 25, end at the start / 1e4.
START, END = 1 / 25, 1 / 25 / 1e4


def lr_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Return what the learning rate is multiplied by at a step (from 0) of a training of `steps` steps."""
    match schedule:
        case Cosine():
            return schedule.floor + (1 - schedule.floor) * _half_cosine(step / steps)
        case OneCycle():
            peak = schedule.warmup * steps - 1
            last = steps - 1
            if step <= peak:
                return START + (1 - START) * (1 - _half_cosine(step / peak if peak > 0 else 1.0))
            return END + (1 - END) * _half_cosine((step - peak) / (last - peak) if last > peak else 1.0)
    return 1.0


def _half_cosine(progress: float) -> float:
    """Fall from 1 at progress 0 to 0 at progress 1."""
    return (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2
