"""Optimizers and schedules as Python."""

from hpo.config import (
    SGD,
    Adam,
    AdamW,
    Cosine,
    Exponential,
    OneCycle,
    Plateau,
    RMSprop,
    SGDMomentum,
    StepDecay,
    TrialConfig,
    WarmupCosine,
)


def optimizer(config: TrialConfig) -> str:
    """Return the call that makes the optimizer."""
    found = config.optimizer
    match found:
        case SGD():
            kind, more = "SGD", []
        case SGDMomentum():
            kind, more = "SGD", [f"momentum={found.momentum!r}", f"nesterov={found.nesterov}"]
        case Adam() | AdamW():
            kind = "AdamW" if isinstance(found, AdamW) else "Adam"
            more = [f"betas=({found.beta1!r}, {found.beta2!r})", f"eps={found.eps!r}"]
        case RMSprop():
            kind, more = "RMSprop", [f"alpha={found.alpha!r}", f"eps={found.eps!r}"]
    given = ["net.parameters()", "lr=LEARNING_RATE", f"weight_decay={found.weight_decay!r}", *more]
    return f"torch.optim.{kind}(\n        " + ",\n        ".join(given) + ",\n    )"


def schedule(config: TrialConfig) -> list[str]:
    """Return the body of `learning_rate`; the formulas of hpo.training.schedules."""
    match config.schedule:
        case Cosine(floor=floor):
            falling = "(1 + math.cos(math.pi * step / steps)) / 2"
            return [
                f"return LEARNING_RATE * ({floor!r} + {1 - floor!r} * {falling})"
                if floor
                else f"return LEARNING_RATE * {falling}"
            ]
        case OneCycle(warmup=warmup):
            return [
                f"peak, last = {warmup!r} * steps - 1, steps - 1",
                "if step <= peak:",
                "    progress, low = 1 - step / peak if peak > 0 else 0.0, 1 / 25",
                "else:",
                "    progress, low = (step - peak) / (last - peak), 1 / 25 / 1e4",
                "return LEARNING_RATE * (low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2)",
            ]
        case StepDecay(parts=parts, gamma=gamma):
            return [f"return LEARNING_RATE * {gamma!r} ** (step * {parts} // steps)"]
        case Exponential(final=final):
            return [f"return LEARNING_RATE * {final!r} ** (step / max(1, steps - 1))"]
        case WarmupCosine(warmup=warmup):
            return [
                f"rising = {warmup!r} * steps",
                "if step < rising:",
                "    return LEARNING_RATE * (step + 1) / (rising + 1)",
                "return LEARNING_RATE * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2",
            ]
        case Plateau(patience=patience, gamma=gamma):
            return [
                "best, still, plateaus = math.inf, 0, 0",
                "for loss in losses:",
                "    best, still = (loss, 0) if loss < best * (1 - 1e-4) else (best, still + 1)",
                f"    if still > {patience}:",
                "        plateaus, still = plateaus + 1, 0",
                f"return LEARNING_RATE * {gamma!r} ** plateaus",
            ]
    return ["return LEARNING_RATE"]
