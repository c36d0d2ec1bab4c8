"""Trials and studies as values to be shown."""

from dataclasses import dataclass
from typing import Any

from hpo.config import Metric, TrialConfig
from hpo.constraints import Cost
from hpo.recipe import Budget
from hpo.store.leases.stopping import StopReason
from hpo.store.record import State, StudyAttributes, TrialAttributes


@dataclass(frozen=True)
class TrialView:
    """A trial."""

    trial_id: int
    number: int
    state: State
    value: float | None
    """Value of the metric."""
    curve: dict[int, float]
    """Value of the metric by epoch."""
    attributes: TrialAttributes
    params: dict[str, Any]
    """The draws, by name."""
    cost: float | None = None
    """Value of the second objective, if there are two."""

    @property
    def outside(self) -> str | None:
        """Why the study's space, changed since, cannot draw the trial; None if it can."""
        return self.attributes.outside

    @property
    def config(self) -> TrialConfig:
        """The configuration. Raises: StudyError if there is none yet, ConfigError if it cannot be read."""
        return self.attributes.training_config(self.number)


@dataclass(frozen=True)
class StudyView:
    """A study; budget, time and metric are None for a study that hpo did not create."""

    study_id: int
    name: str
    counts: dict[State, int]
    """Trials by state; FAIL without those that were continued under another number."""
    best_value: float | None
    attributes: StudyAttributes
    budget: Budget | None
    active_seconds: float | None
    """Seconds in which at least one worker was at work."""
    over: StopReason | None
    workers: tuple[dict[str, Any], ...]
    """What each worker reports about itself: host, process, device, memory."""
    infeasible: int = 0
    """Draws that broke the space's constraints and were not trained."""
    drawn_at_random: int = 0
    """Trials that were drawn at random because the sampler's model failed."""
    revived: int = 0
    """Second chances that were given, those in training among them."""
    graph_failures: int = 0
    """Trials that took their steps one by one because their CUDA graph failed."""
    outside: int = 0
    """Finished trials that the study's space, changed since, cannot draw."""

    @property
    def metric(self) -> Metric | None:
        """What is maximized."""
        return self.attributes.metric

    @property
    def metric_label(self) -> str:
        """What is maximized, in words: "validation accuracy"."""
        return self.attributes.metric_label

    @property
    def cost(self) -> Cost | None:
        """What is minimized besides; None if there is one objective."""
        return self.attributes.cost

    @property
    def cost_label(self) -> str | None:
        """What is minimized besides, in words; None if there is one objective."""
        return self.attributes.cost_label

    @property
    def finished(self) -> int:
        """Trials that count against the budget."""
        return self.counts[State.COMPLETE] + self.counts[State.PRUNED]

    @property
    def trials_per_hour(self) -> float | None:
        """Finished trials per hour in which a worker was at work; None before there are any."""
        return 3600 * self.finished / self.active_seconds if self.finished and self.active_seconds else None

    @property
    def workers_asked(self) -> int:
        """Workers that the runs which are at work have asked for, with those that were started by hand."""
        asked = {w["supervisor"]: int(w["asked"]) for w in self.workers if w.get("supervisor") and "asked" in w}
        return sum(asked.values()) + sum(w.get("supervisor") not in asked for w in self.workers)

    @property
    def lanes(self) -> int:
        """Programs in which workers train several trials at once."""
        return sum(int(worker.get("lanes", 0)) for worker in self.workers)

    @property
    def occupancy(self) -> float | None:
        """The mean share of the slots for trials in use, over the workers that report it."""
        shares = [float(worker["occupancy"]) for worker in self.workers if "occupancy" in worker]
        return sum(shares) / len(shares) if shares else None
