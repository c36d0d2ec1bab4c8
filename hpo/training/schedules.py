"""Learning-rate schedules as functions of the step: they have no state to store or restore.

The functions of the kinds of schedules depend on nothing but `math` and each other: an exported script contains their
source (`hpo.results.script`).
"""

import math
from collections.abc import Callable, Sequence

from hpo.config import Constant, Cosine, Exponential, OneCycle, Plateau, Schedule, StepDecay, WarmupCosine


def lr_factor(schedule: Schedule, step: int, steps: int, losses: Sequence[float] = ()) -> float:
    """Return the factor of the learning rate at a step (from 0) of a training of `steps` steps.

    `losses` are the validation losses of the epochs so far.
    """
    return FACTORS[type(schedule)](step, steps, losses, **arguments_of(schedule))


def arguments_of(schedule: Schedule) -> dict[str, float]:
    """Return the hyperparameters of a schedule, which its function takes by name."""
    return {name: value for name, value in vars(schedule).items() if name != "name"}


def constant(step: int, steps: int, losses: Sequence[float]) -> float:
    """Return 1 at every step."""
    return 1.0


def cosine(step: int, steps: int, losses: Sequence[float], *, floor: float) -> float:
    """Fall along half a cosine from 1 to `floor`."""
    return floor + (1 - floor) * half_cosine(step / steps)


def one_cycle(step: int, steps: int, losses: Sequence[float], *, warmup: float) -> float:
    """Rise along half a cosine in the first `warmup` share of the steps, then fall: torch's OneCycleLR."""
    start, end = 1 / 25, 1 / 25 / 1e4
    peak = warmup * steps - 1
    last = steps - 1
    if step <= peak:
        return start + (1 - start) * (1 - half_cosine(step / peak if peak > 0 else 1.0))
    return end + (1 - end) * half_cosine((step - peak) / (last - peak) if last > peak else 1.0)


def step_decay(step: int, steps: int, losses: Sequence[float], *, parts: int, gamma: float) -> float:
    """Multiply by `gamma` after each of `parts` equal parts of the training."""
    return float(gamma ** (step * parts // steps))


def exponential(step: int, steps: int, losses: Sequence[float], *, final: float) -> float:
    """Fall by the same factor at each step, from 1 to `final`."""
    return float(final ** (step / max(1, steps - 1)))


def warmup_cosine(step: int, steps: int, losses: Sequence[float], *, warmup: float) -> float:
    """Rise linearly in the first `warmup` share of the steps, then fall along half a cosine to 0."""
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    return half_cosine((step - rising) / (steps - rising))


def plateau(step: int, steps: int, losses: Sequence[float], *, patience: int, gamma: float) -> float:
    """Multiply by `gamma` when the loss has not improved, by 1e-4 of the best, for more than `patience` epochs."""
    best, waited, count = math.inf, 0, 0
    for loss in losses:
        if loss < best * (1 - 1e-4):
            best, waited = loss, 0
        else:
            waited += 1
            if waited > patience:
                count, waited = count + 1, 0
    return float(gamma**count)


def half_cosine(progress: float) -> float:
    """Fall from 1 at progress 0 to 0 at progress 1."""
    return (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2


FACTORS: dict[type[Schedule], Callable[..., float]] = {
    Constant: constant,
    Cosine: cosine,
    OneCycle: one_cycle,
    StepDecay: step_decay,
    Exponential: exponential,
    WarmupCosine: warmup_cosine,
    Plateau: plateau,
}
"""The function of each kind of schedule."""
