"""The record: every attribute that a trial or a study of hpo carries, with its type, who writes and who reads it.

The keys are those of version 0.1.0 and do not change: stores of that version are read by them.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hpo.config import LABELS, Metric, TrialConfig
from hpo.constraints import COST_NAMES, Cost, Costs
from hpo.errors import StudyError
from hpo.store.attributes import AttributeGroup, Attributes, structured, system, user


class State(StrEnum):
    """A trial's state, by the names that Optuna stores."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"
    WAITING = "WAITING"


FINISHED = (State.COMPLETE, State.PRUNED)
"""The states that a budget counts."""
UNFINISHED = (State.RUNNING, State.WAITING)
ENDED = (*FINISHED, State.FAIL)


@dataclass(frozen=True)
class Failure:
    """Why a trial failed or was cut short."""

    kind: str
    """One of oom, error, diverged, lost."""
    message: str


@dataclass(frozen=True)
class Voided:
    """Why a finished trial was taken out of the study, by hand."""

    why: str
    was: str
    """The state before."""


@dataclass(frozen=True)
class Repeat:
    """What a trial of a confirmation repeats: a trial of the confirmed study, on a fresh seed."""

    trial: int
    """The trial's number in the confirmed study."""
    repeat: int
    """Index of the repetition, from 0; the seed follows from it."""


@dataclass(frozen=True)
class WarmSource:
    """Where the configuration of a warm start comes from."""

    study: str
    uid: str
    trial: int
    """The number in that study."""


class TrialAttributes(Attributes):
    """The attributes of a trial."""

    config = user("config", dict[str, Any])
    """The drawn configuration, as `TrialConfig.to_dict` gives it. Written by the worker that draws it, before training;
    read by all."""
    baseline = user("baseline", str)
    """Name of the baseline that the trial tries. Written when the study is created; read by pruning (a baseline is
    never pruned), confirmation and output."""
    failure = structured("failure", Failure)
    """Why the trial failed or diverged. Written by its worker, or by whoever finds the worker dead; read by output and
    `hpo trials retry`."""
    excused = user("excused", str)
    """Why a failed trial does not count as a failure. Written where a trial is voided, retried, infeasible, or
    continued under another number; read by the failure limit, confirmation and reports."""
    infeasible = user("infeasible", str)
    """Which constraints the draw broke, so that it was not trained. Written by the worker; read by output."""
    void = structured("void", Voided)
    """Why the trial was voided. Written by `hpo trials void`; read by people."""
    is_void = system("void", bool)
    """Whether the trial was voided. Written by `hpo trials void`; read by the grid sampler, which draws it again."""
    costs = user("costs", Costs)
    """Measured costs of the untrained network. Written by the worker before training; read when the space changes."""
    cost = system("cost", float)
    """The second objective of a study with two. Written by the worker before training; read by samplers and pruners."""
    constraints = AttributeGroup[float]("system", "constraints:")
    """Relative excess over each limit, by its name (`max_parameters`): broken above 0. Optuna's own key. Written by the
    worker before training; read by Optuna's samplers."""
    outside = system("outside", str)
    """Why the study's space, changed since, cannot draw the trial. Written by `hpo studies set-space`; read by all that
    rank, count or learn."""
    diverged = system("diverged", bool)
    """Whether the loss became NaN or infinite. Written by the worker; read by the cached storage for samplers."""
    compared = user("compared", dict[str, float])
    """What pruning compared at each rung, by the epoch as text: the value at the end of training that the curve
    promised then. Written by the worker where the recipe compares projections; read by pruning and by people."""
    drawn_at_random = user("drawn_at_random", str)
    """Why the sampler's model could not draw the trial. Written by the worker; read by output."""
    fixed_params = system("fixed_params", dict[str, Any])
    """The draws that an enqueued trial is given. Optuna's own key. Written where trials are enqueued; read by Optuna,
    the grid sampler and changes of the space."""
    tpe = AttributeGroup[Any]("system", "tpe:")
    """What Optuna's TPE sampler tells other workers about the draw at hand. Deleted when the space changes."""
    artifacts = AttributeGroup[str]("system", "artifacts:")
    """Pictures of the trial, by artifact, as JSON text. Optuna's own key. Written by the worker; read by its
    dashboard."""

    root = system("root", int)
    """The number under which a continued trial first began; its checkpoint is named by it. Written when a dead worker's
    trial is continued, or a pruned one gets a second chance; read by the worker."""
    continues = user("continues", int)
    """The number of the dead worker's trial that this one continues. Written with `root`; read by people."""
    resumed_at = user("resumed_at", int)
    """Epochs that were complete when the trial was continued. Written with `root`; read when the next worker dies."""
    deaths = user("deaths", int)
    """How many workers in a row died in the same epoch of the trial. Written with `root`; read when the next dies."""
    retries = user("retries", int)
    """The number of the failed trial that this one retries. Written by `hpo trials retry`; read by people."""
    revives = system("revives", int)
    """The number of the pruned trial that this one trains on, as its second chance. Written when it is claimed; read by
    pruning, which leaves it alone, by the sampler, which sees one of the two, and by output."""
    warm_from = structured("warm_from", WarmSource)
    """Where a warm start comes from. Written by `hpo run --warm-start`; read there, so as not to enqueue it twice."""
    confirms = structured("confirms", Repeat)
    """What a trial of a confirmation or an audit trains again. Written by `hpo confirm` and `hpo audit`; read by their
    evaluation."""

    parameters = user("parameters", int)
    """Trainable parameters. This and the next two are written by the worker when training begins; read by output."""
    device = user("device", str)
    """The device of the training, such as cpu or cuda:0."""
    precision = user("precision", str)
    """The precision of the training, fp32, bf16 or tf32."""
    graph_failure = user("graph_failure", str)
    """Why the training took its steps one by one although a CUDA graph was wanted. Written by the worker when the trial
    ends; read by output and `hpo doctor`."""
    retried_after = user("retried_after", str)
    """The out-of-memory message after which the trial was started again with split batches. Written by the worker."""
    epochs = user("epochs", int)
    """Epochs completed. This and the next two are written by the worker when the trial ends; read by output."""
    seconds = user("seconds", float)
    """Seconds of training."""
    curves = user("curves", dict[str, list[float]])
    """Learning curves by the name of the measure, one value per epoch."""
    train_accuracy = user("train_accuracy", float)
    """Accuracy on the training rows at the end. This and the next are written by the worker; read by reports."""
    overfitting_gap = user("overfitting_gap", float)
    """Training accuracy minus validation accuracy at the end."""
    sampling_error = user("sampling_error", float)
    """Standard error of the value that comes from the choice of validation rows; absent where the metric is accuracy,
    as it follows from the value. Written by the worker at the end; read by confirmation."""

    def training_config(self, number: int) -> TrialConfig:
        """Return the configuration. Raises: StudyError if there is none, ConfigError if it cannot be read."""
        if self.config is None:
            raise StudyError(
                f"trial {number}: must have a configuration, got none: hpo did not draw it. Choose another."
            )
        return TrialConfig.from_dict(self.config, f"trial {number}: config")


KEPT_WHEN_CONTINUED = (
    TrialAttributes.config,
    TrialAttributes.baseline,
    TrialAttributes.confirms,
    TrialAttributes.costs,
)
"""User attributes that a trial keeps when it is continued or retried under another number."""


class StudyAttributes(Attributes):
    """The attributes of a study. Written when it is created, unless it says otherwise."""

    space_name = user("space_name", str)
    """Name of the search space. Written again by `hpo studies set-space`; read by output."""
    space = user("space", dict[str, Any])
    """The search space, as a document. Written again by `hpo studies set-space`; read by every worker."""
    recipe = user("recipe", dict[str, Any])
    """The recipe, as a document. Read by every worker."""
    data_fingerprint = user("data_fingerprint", str)
    """SHA-256 of the data set. Read by every worker, which refuses other data."""
    hpo_version = user("hpo_version", str)
    """The version of hpo that created the study. Read by people."""
    confirms = user("confirms", str)
    """The uid of the study that this one confirms. Written by `hpo confirm`; read there and when the space changes."""
    audits = user("audits", str)
    """The uid of the study of which this one trains pruned trials to the end. Written by `hpo audit`; read there and
    when the space changes."""
    metric_names = system("study:metric_names", list[str])
    """What the values of trials are, in words. Optuna's own key; read by output and the dashboard."""
    note_version = system("dashboard:note_ver", int)
    """Counts the changes of the note that optuna-dashboard shows. Its own key; written by the workers."""
    note_parts = AttributeGroup[str]("system", "dashboard:note_str:")
    """The note in parts, by their index. The dashboard's own key; written by the workers."""

    @property
    def is_linked(self) -> bool:
        """Whether the study trains trials of another one again, and draws none."""
        return self.confirms is not None or self.audits is not None

    @property
    def metric(self) -> Metric | None:
        """What is maximized; None for a study that hpo did not create."""
        return next((name for name in LABELS if name in self._objectives[:1]), None)

    @property
    def cost(self) -> Cost | None:
        """What is minimized besides; None if there is one objective."""
        return next((name for name in COST_NAMES if name in self._objectives[1:]), None)

    @property
    def metric_label(self) -> str:
        """What is maximized, in words ("validation accuracy"); "value" where the study does not say so."""
        return (self.metric_names or ["value"])[0]

    @property
    def cost_label(self) -> str | None:
        """What is minimized besides, in words ("latency in ms"); None if there is one objective."""
        return next(iter((self.metric_names or [])[1:]), None)

    @property
    def _objectives(self) -> list[str]:
        objective = (self.recipe or {}).get("objective") or (self.space or {}).get("metric") or []
        return [objective] if isinstance(objective, str) else list(objective)
