"""A study recipe: how to look. Sampler, pruner, budget, epochs, seed and engine of a study."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from hpo import documents
from hpo.config import Metric
from hpo.config.fields import FROM_LIST
from hpo.documents import Section
from hpo.errors import UsageError
from hpo.space import SearchSpace

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


def seconds(text: str) -> int:
    """Return the seconds of a duration: 90, 90s, 30m, 1h30m. Raises: ValueError for anything else, and for 0."""
    match = _DURATION.fullmatch(text.strip())
    hours, minutes, rest = (int(g or 0) for g in match.groups()) if match and text.strip() else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + rest
    if total <= 0:
        raise ValueError(f'must be a duration as 90s, 30m or 1h30m, got "{text}".')
    return total


def _duration(value: Any) -> Any:
    return seconds(value) if isinstance(value, str) else value


class Budget(Section):
    """When a study ends; of all its workers, machines and restarts together. The first limit reached counts."""

    trials: Annotated[int, Field(ge=1)] = 60
    """Finished trials: complete or pruned."""
    timeout: Annotated[int, Field(ge=1), BeforeValidator(_duration)] | None = None
    """Seconds in which at least one worker was at work; `30m` is understood."""
    target: float | None = None
    """Stop when a trial reaches this value of the metric."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop when the best has not improved for this many finished trials."""
    only_waiting: bool = False
    """Run the trials that wait to be run, and draw no others."""
    max_failures: Annotated[int, Field(ge=1)] = 20
    """Stop when this many trials have failed; they do not count as finished."""


class Sampler(Section):
    """Who draws the next configuration."""

    name: Literal["tpe", "gp", "qmc", "random", "grid", "nsga2"] = "tpe"
    """TPE; Gaussian processes; a quasi-random Sobol sequence; random; every configuration of a space without
    continuous ranges, in random order; NSGA-II, for two objectives."""
    startup_trials: Annotated[int, Field(ge=1)] = 10
    """Random draws before the sampler models what it has seen."""
    population: Annotated[int, Field(ge=2)] = 20
    """Trials of a generation of NSGA-II; the first generation is random."""


class Pruner(Section):
    """Who ends trials early, by the metric after each epoch."""

    name: Literal["successive_halving", "hyperband", "median", "percentile", "patient", "threshold", "none"] = (
        "successive_halving"
    )
    min_epochs: Annotated[int, Field(ge=1)] = 1
    """The first epoch after which a trial may be pruned."""
    reduction: Annotated[int, Field(ge=2)] = 4
    """Successive halving and Hyperband keep the best 1/reduction at each rung; rungs are min_epochs * reduction**k."""
    startup_trials: Annotated[int, Field(ge=0)] = 5
    """Median and percentile prune nothing before this many trials are complete."""
    percentile: Annotated[float, Field(gt=0, lt=100)] = 25.0
    """Percentile keeps so many percent of the trials."""
    patience: Annotated[int, Field(ge=1)] = 3
    """Patient prunes a trial that has not improved for more than so many epochs."""
    threshold: float = 0.3
    """Threshold prunes a trial whose value is below this."""


class Fidelity(Section):
    """What the search's trials are trained on, to be cheaper; confirmations and exports take the space's own."""

    data_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """Part of the training rows."""
    image_size: Annotated[int, Field(ge=1)] | None = None
    """Width and height that images are scaled to."""

    def fields(self) -> dict[str, Any]:
        """Return what is set, by its name in the space."""
        return self.model_dump(exclude_none=True)


class Checkpoints(Section):
    """What is kept of trained weights; a running trial's last checkpoint is always kept."""

    every_seconds: Annotated[float, Field(ge=0)] = 30.0
    """A running trial is saved after an epoch if its last checkpoint is older than this."""
    keep_best: Annotated[int, Field(ge=0)] = 3
    """Complete trials whose final state is kept, the best ones."""
    max_megabytes: Annotated[float, Field(gt=0)] = 2048.0
    """A study's checkpoints together; of finished trials the worst go first. Folders only, not S3."""


EngineName = Literal["auto", "packed", "solo"]


def _objective_form(value: Any) -> str:
    return "two" if isinstance(value, list | tuple) else "one"


MinimizedCost = Literal["parameters", "latency_ms"]
_Two = Annotated[tuple[Metric, MinimizedCost], FROM_LIST, Tag("two")]
Objective = Annotated[Annotated[Metric, Tag("one")] | _Two, Discriminator(_objective_form)]


class StudyRecipe(Section):
    """How a study looks for the best configuration."""

    title: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Takes the place of the space's epochs."""
    objective: Objective | None = None
    """What to maximize on the validation rows; takes the place of the space's metric. With a second entry,
    `["accuracy", "parameters"]` or `["accuracy", "latency_ms"]`, also a cost to minimize."""
    engine: EngineName = "auto"
    """Trials one at a time; many small networks as one program; or that only where it measures faster here."""
    duplicates: Literal["ask_again", "new_seed"] = "ask_again"
    """What becomes of a draw that was drawn before: the sampler is asked again, or it is trained on another seed."""
    budget: Budget = Budget()
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner()
    checkpoints: Checkpoints = Checkpoints()
    fidelity: Fidelity = Fidelity()

    @model_validator(mode="after")
    def _consistent(self) -> "StudyRecipe":
        if self.epochs is not None and self.pruner.min_epochs > self.epochs:
            raise ValueError(f"pruner.min_epochs must be <= epochs, got {self.pruner.min_epochs} and {self.epochs}.")
        if self.sampler.name == "nsga2" and self.cost is None:
            raise ValueError(
                'sampler.name: nsga2 needs two objectives, got one. Set objective = ["accuracy", "parameters"] '
                "or take another sampler."
            )
        return self

    @property
    def metric(self) -> Metric | None:
        """What to maximize, if the recipe says so."""
        return self.objective[0] if isinstance(self.objective, tuple) else self.objective

    @property
    def cost(self) -> MinimizedCost | None:
        """What to minimize besides, if anything."""
        return self.objective[1] if isinstance(self.objective, tuple) else None

    def applied_to(self, space: SearchSpace) -> SearchSpace:
        """Return the space that is walked: with the recipe's epochs, metric and fidelity, if it sets them."""
        told = {"epochs": self.epochs, "metric": self.metric} | self.fidelity.fields()
        return space.model_copy(update={name: value for name, value in told.items() if value is not None})

    def identity(self) -> dict[str, Any]:
        """Return what makes two recipes the same search: what its trials and their order depend on.

        The engine is how a trial is run, not what it is.
        """
        content = documents.dump(self)
        del content["title"], content["budget"], content["checkpoints"], content["engine"]
        return content


def load_recipe(name: str) -> StudyRecipe:
    """Return the recipe of this name or path. Raises: UsageError, DocumentError."""
    document = documents.find("recipe", name)
    return documents.check(StudyRecipe, document.content, document.where)


def parse_timeout(text: str) -> int:
    """Return the seconds of a `--timeout`. Raises: UsageError."""
    try:
        return seconds(text)
    except ValueError as error:
        raise UsageError(f"--timeout: {error}") from None
