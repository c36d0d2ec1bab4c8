"""Short texts about studies and trials."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpo import service

if TYPE_CHECKING:
    from hpo.service.progress import StudyView, TrialView

_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float]) -> str:
    """Return a curve as a row of blocks, the lowest value to the highest."""
    if not values:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_BLOCKS[round((value - low) / span * (len(_BLOCKS) - 1))] for value in values)


def value_text(trial: "TrialView | None") -> str:
    """Return a trial's value; "none" where there is none."""
    return f"{trial.value:.4f}" if trial is not None and trial.value is not None else "none"


def duration(seconds: float) -> str:
    """Return a duration as 45s, 3m05s or 1h30m."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else (f"{minutes}m{rest:02}s" if minutes else f"{rest}s")


def pace(study: "StudyView") -> str:
    """Return how fast a study progresses; empty where that is not known yet."""
    return f"{study.trials_per_hour:,.0f} trials per hour" if study.trials_per_hour else ""


def lanes(study: "StudyView") -> str:
    """Return how a study's workers are filled; empty where trials are trained one by one."""
    parts = []
    if study.lanes:
        parts.append(f"{study.lanes} lane{'' if study.lanes == 1 else 's'}")
    if study.occupancy is not None:
        parts.append(f"{100 * study.occupancy:.0f} % of the slots in use")
    return ", ".join(parts)


def workers_at(study: "StudyView") -> str:
    """Return how many workers are at work of how many that were asked for, where, and with how much memory."""
    places: dict[str, list[str]] = {}
    for worker in study.workers:
        stats = [str(worker.get("device", "?"))]
        if "memory_mb" in worker:
            stats.append(f"{worker['memory_mb']:,} MB")
        if "gpu_percent" in worker:
            stats.append(f"GPU {worker['gpu_percent']} %")
        places.setdefault(str(worker.get("place") or worker.get("host", "?")), []).append(" ".join(stats))
    count, asked = len(study.workers), study.workers_asked
    number = f"{count} of {asked} workers" if asked > count else f"{count} worker{'' if count == 1 else 's'}"
    listed = "; ".join(f"{place}: {', '.join(sorted(workers))}" for place, workers in sorted(places.items()))
    return f"{number}  {listed}" if listed else number


def ended_line(trial: "TrialView") -> str:
    """Return how a trial ended, in one line."""
    attributes, failure = trial.attributes, trial.attributes.failure
    if trial.state == service.progress.State.FAIL:
        message = failure.message if failure else "for a reason that was not recorded"
        return f"trial {trial.number:<3} failed: {message}"
    word = "diverged" if failure else trial.state.lower()
    epochs = len(trial.curve) if attributes.epochs is None else attributes.epochs
    seconds = attributes.seconds or 0.0
    configuration = service.studies.configuration(trial)
    return f"trial {trial.number:<3} {word:8} {value_text(trial)}  {epochs} epochs {seconds:.1f} s  {configuration}"
