"""A study recipe: how a space is searched. Sampler, pruner, budget, epochs, seed and engine of a study."""

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
    """Limits of a study, for all its workers, machines and restarts together. The first limit reached ends it."""

    trials: Annotated[int, Field(ge=1)] = 60
    """Finished trials: complete or pruned."""
    timeout: Annotated[int, Field(ge=1), BeforeValidator(_duration)] | None = None
    """Seconds during which at least one worker was running; texts such as `30m` are accepted."""
    target: float | None = None
    """Stop when a trial reaches this value of the metric."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop when the best has not improved for this many finished trials."""
    only_waiting: bool = False
    """Run only the trials that are waiting, and draw no others."""
    max_failures: Annotated[int, Field(ge=1)] = 20
    """Stop when this many trials have failed; they do not count as finished."""
    revive: Annotated[int, Field(ge=0)] = 0
    """So many of the trials are second chances: pruned trials, those that promise most, trained on. They are the last
    of the budget, when most is known of how curves grow."""


class Sampler(Section):
    """The sampler, which draws the next configuration."""

    name: Literal["tpe", "gp", "qmc", "random", "grid", "nsga2"] = "tpe"
    """TPE; Gaussian processes; a quasi-random Sobol sequence; random; every configuration of a space without
    continuous ranges, in random order; NSGA-II, for two objectives."""
    startup_trials: Annotated[int, Field(ge=1)] = 10
    """Number of random draws before the sampler uses its model."""
    local_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the draws after the random ones that change one of the best configurations in a few parameters."""
    cost_aware: bool = False
    """Draw again, the more likely the longer it would train, what would train longer than the best configurations; the
    times are predicted from those of the study's own trials. Not with two objectives."""
    population: Annotated[int, Field(ge=2)] = 20
    """Number of trials per generation of NSGA-II; the first generation is random."""

    @model_validator(mode="after")
    def _of_a_grid(self) -> "Sampler":
        for name, given in (("local_share", f"{self.local_share:g}"), ("cost_aware", "true")):
            if self.name == "grid" and getattr(self, name):
                raise ValueError(f"{name}: a grid draws each of its configurations once, got {given}. Remove it.")
        return self


Compare = Literal["value", "projection"]
COMPARING = ("successive_halving", "hyperband", "median", "percentile")
"""Pruners that compare a trial with others."""


class Pruner(Section):
    """The pruner, which stops trials early, by their metric after each epoch."""

    name: Literal["successive_halving", "hyperband", "median", "percentile", "patient", "threshold", "none"] = (
        "successive_halving"
    )
    compare: Compare = "value"
    """What the pruner compares: the values as they stand, or the values at the end of training that they promise, by
    the growth of the study's own learning curves with the same schedule."""
    min_epochs: Annotated[int, Field(ge=1)] = 1
    """First epoch after which a trial can be pruned."""
    reduction: Annotated[int, Field(ge=2)] = 4
    """Successive halving and Hyperband keep the best 1/reduction at each rung; rungs are min_epochs * reduction**k."""
    startup_trials: Annotated[int, Field(ge=0)] = 5
    """Number of complete trials before median and percentile prune any."""
    percentile: Annotated[float, Field(gt=0, lt=100)] = 25.0
    """Percentage of the trials that percentile keeps."""
    patience: Annotated[int, Field(ge=1)] = 3
    """Number of epochs without improvement after which patient prunes a trial."""
    threshold: float = 0.3
    """Value of the metric below which threshold prunes a trial."""

    @model_validator(mode="after")
    def _comparing(self) -> "Pruner":
        if self.compare == "projection" and self.name not in COMPARING:
            raise ValueError(
                f'compare: "projection" needs a pruner that compares trials, got "{self.name}". '
                f"Take one of {', '.join(COMPARING)}."
            )
        return self


class Fidelity(Section):
    """Cheaper data for the trials of the search; confirmations and exports use the data of the space."""

    data_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the training rows."""
    image_size: Annotated[int, Field(ge=1)] | None = None
    """Width and height that images are scaled to."""

    def fields(self) -> dict[str, Any]:
        """Return the fields that are set, by their name in the space."""
        return self.model_dump(exclude_none=True)


class Checkpoints(Section):
    """Which checkpoints are kept; the latest checkpoint of a running trial is always kept."""

    every_seconds: Annotated[float, Field(ge=0)] = 30.0
    """Age of the latest checkpoint in seconds from which on a running trial is saved after an epoch."""
    keep_best: Annotated[int, Field(ge=0)] = 3
    """Number of complete trials whose final state is kept: the best ones."""
    keep_pruned: Annotated[int, Field(ge=0)] = 0
    """Number of pruned trials whose state is kept, those that promise most: `hpo run --revive` goes on from it. With
    second chances in the budget at least as many are kept."""
    max_megabytes: Annotated[float, Field(gt=0)] = 2048.0
    """Largest total size of a study's checkpoints; those of the worst finished trials are deleted first. Only for
    folders, not for S3."""


EngineName = Literal["auto", "packed", "solo"]


def _objective_form(value: Any) -> str:
    return "two" if isinstance(value, list | tuple) else "one"


MinimizedCost = Literal["parameters", "latency_ms"]
_Two = Annotated[tuple[Metric, MinimizedCost], FROM_LIST, Tag("two")]
Objective = Annotated[Annotated[Metric, Tag("one")] | _Two, Discriminator(_objective_form)]


class StudyRecipe(Section):
    """How a study searches the best configuration."""

    title: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Number of epochs, overrides that of the space."""
    objective: Objective | None = None
    """Metric to maximize on the validation rows, overrides that of the space. With a second entry, such as
    `["accuracy", "parameters"]` or `["accuracy", "latency_ms"]`, also a cost to minimize."""
    engine: EngineName = "auto"
    """`solo`: trials one at a time; `packed`: many small networks as one program; `auto`: packed where that is
    measured to be faster."""
    duplicates: Literal["ask_again", "new_seed"] = "ask_again"
    """What happens when a configuration is drawn again: the sampler is asked for another one, or it is trained with
    another seed."""
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
        """Metric to maximize, if the recipe sets it."""
        return self.objective[0] if isinstance(self.objective, tuple) else self.objective

    @property
    def cost(self) -> MinimizedCost | None:
        """Cost to minimize, if there is a second objective."""
        return self.objective[1] if isinstance(self.objective, tuple) else None

    def applied_to(self, space: SearchSpace) -> SearchSpace:
        """Return a space with the epochs, metric and fidelity of the recipe, as far as it sets them."""
        overrides = {"epochs": self.epochs, "metric": self.metric} | self.fidelity.fields()
        return space.model_copy(update={name: value for name, value in overrides.items() if value is not None})

    def identity(self) -> dict[str, Any]:
        """Return the content that makes two recipes the same search: the fields on which trials and their order depend.

        The engine is not among them: it changes how a trial is run, not its result.
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
