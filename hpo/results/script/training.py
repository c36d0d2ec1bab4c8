"""Optimizers and learning-rate schedules as Python code."""

import inspect
from collections.abc import Callable

from hpo.config import SGD, Adam, AdamW, RMSprop, SGDMomentum, TrialConfig
from hpo.training import schedules


def optimizer(config: TrialConfig) -> str:
    """Return the expression that makes the optimizer of a config."""
    of_config = config.optimizer
    match of_config:
        case SGD():
            kind, more = "SGD", []
        case SGDMomentum():
            kind, more = "SGD", [f"momentum={of_config.momentum!r}", f"nesterov={of_config.nesterov}"]
        case Adam() | AdamW():
            kind = "AdamW" if isinstance(of_config, AdamW) else "Adam"
            more = [f"betas=({of_config.beta1!r}, {of_config.beta2!r})", f"eps={of_config.eps!r}"]
        case RMSprop():
            kind, more = "RMSprop", [f"alpha={of_config.alpha!r}", f"eps={of_config.eps!r}"]
    arguments = ["net.parameters()", "lr=LEARNING_RATE", f"weight_decay={of_config.weight_decay!r}", *more]
    return f"torch.optim.{kind}(\n        " + ",\n        ".join(arguments) + ",\n    )"


def schedule_functions(config: TrialConfig) -> list[Callable[..., float]]:
    """Return the functions of `hpo.training.schedules` that compute a config's schedule; none if it is constant."""
    function = schedules.FACTORS[type(config.schedule)]
    if function is schedules.constant:
        return []
    uses_cosine = schedules.half_cosine.__name__ in inspect.getsource(function)
    return [schedules.half_cosine, function] if uses_cosine else [function]


def learning_rate(config: TrialConfig) -> str:
    """Return the expression of the learning rate at `step` of `steps`, given the validation `losses` so far."""
    function = schedules.FACTORS[type(config.schedule)]
    if function is schedules.constant:
        return "LEARNING_RATE"
    arguments = ", ".join(f"{name}={value!r}" for name, value in schedules.arguments_of(config.schedule).items())
    return f"LEARNING_RATE * {function.__name__}(step, steps, losses, {arguments})"
