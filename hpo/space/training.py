"""Sections of a space for training: optimizers, schedules, averaged weights, augmentation."""

from dataclasses import asdict, fields
from typing import Annotated, Any, Literal

from pydantic import model_validator

from hpo.config import (
    EMA,
    OPTIMIZERS,
    SCHEDULES,
    Augment,
    Average,
    NoAverage,
    Optimizer,
    Schedule,
    hyperparameters_of,
)
from hpo.documents import Section
from hpo.ranges import Field, Flag, Integer, Number, pick, values_of, within
from hpo.space.fields import Probability, Rate, Share, Size
from hpo.suggesters import Suggester

OptimizerName = Literal["sgd", "sgd_momentum", "adam", "adamw", "rmsprop"]
ScheduleName = Literal["none", "cosine", "one_cycle", "step", "exponential", "warmup_cosine", "plateau"]
AverageName = Literal["none", "ema"]


class AugmentSpace(Section):
    """How training images are changed in each epoch; a kind of change is used if its strength is above 0."""

    flip: Probability = 0.0
    """Probability of a horizontal flip."""
    shift: Annotated[Integer, within(0)] = 0
    """Pixels of black padding around the image, which is then cropped at a random position."""
    rotate: Annotated[Number, within(0, 180)] = 0.0
    """Largest rotation in degrees, to either side."""
    erase: Probability = 0.0
    """Probability that a rectangle of 2 to 33 % of the image becomes black."""
    jitter: Rate = 0.0
    """Largest relative change of brightness, contrast and saturation."""

    def draw(self, suggester: Suggester) -> Augment:
        """Draw the strength of each kind."""
        return Augment(**{f.name: pick(getattr(self, f.name), f"augment.{f.name}", suggester) for f in fields(Augment)})

    def draws_of(self, augment: Augment) -> dict[str, Any]:
        """Return the value of every parameter with which this section could give an augmentation."""
        return {f"augment.{name}": value for name, value in asdict(augment).items()}


class Hyperparameters(Section):
    """Hyperparameters of optimizers; each is only drawn for the optimizers that have it."""

    lr: Annotated[Number, within(0, open_low=True)] | None = None
    weight_decay: Annotated[Number, within(0)] | None = None
    momentum: Rate | None = None
    nesterov: Flag | None = None
    beta1: Rate | None = None
    beta2: Rate | None = None
    alpha: Rate | None = None
    eps: Annotated[Number, within(0, open_low=True)] | None = None


class OptimizerSpace(Hyperparameters):
    """Optimizers by name; the table of one optimizer, such as `[optimizer.sgd]`, overrides the common fields."""

    name: Field[OptimizerName]
    sgd: Hyperparameters = Hyperparameters()
    sgd_momentum: Hyperparameters = Hyperparameters()
    adam: Hyperparameters = Hyperparameters()
    adamw: Hyperparameters = Hyperparameters()
    rmsprop: Hyperparameters = Hyperparameters()

    @model_validator(mode="after")
    def _every_optimizer_has_a_rate(self) -> "OptimizerSpace":
        for name in values_of(self.name):
            if self.lr is None and getattr(self, name).lr is None:
                raise ValueError(f"lr is required for {name}. Add it here or in [optimizer.{name}].")
        return self

    def draw(self, suggester: Suggester) -> Optimizer:
        """Draw the name of the optimizer, then its hyperparameters; those that the space leaves out have defaults."""
        name = pick(self.name, "optimizer.name", suggester)
        table = getattr(self, name)
        drawn = {}
        for key in hyperparameters_of(OPTIMIZERS[name]):
            if getattr(table, key) is not None:
                drawn[key] = pick(getattr(table, key), f"optimizer.{name}.{key}", suggester)
            elif getattr(self, key) is not None:
                drawn[key] = pick(getattr(self, key), f"optimizer.{key}", suggester)
        return OPTIMIZERS[name](**drawn)

    def draws_of(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the value of every parameter with which this section could give an optimizer."""
        values = asdict(optimizer)
        common = {f"optimizer.{key}": value for key, value in values.items()}
        return common | {f"optimizer.{optimizer.name}.{key}": value for key, value in values.items()}


class ScheduleSpace(Section):
    """Learning-rate schedules by name; each hyperparameter is only drawn for the schedules that have it."""

    name: Field[ScheduleName] = "none"
    floor: Rate | None = None
    warmup: Share | None = None
    final: Share | None = None
    gamma: Share | None = None
    parts: Annotated[Integer, within(2)] | None = None
    patience: Size | None = None

    def draw(self, suggester: Suggester) -> Schedule:
        """Draw the name of the schedule, then its hyperparameters."""
        name = pick(self.name, "schedule.name", suggester)
        given = {key: getattr(self, key) for key in hyperparameters_of(SCHEDULES[name])}
        drawn = {key: pick(field, f"schedule.{key}", suggester) for key, field in given.items() if field is not None}
        return SCHEDULES[name](**drawn)

    def draws_of(self, schedule: Schedule) -> dict[str, Any]:
        """Return the value of every parameter with which this section could give a schedule."""
        return {f"schedule.{key}": value for key, value in asdict(schedule).items()}


class AverageSpace(Section):
    """Averages of the weights by name; the horizon is only drawn for `ema`."""

    name: Field[AverageName] = "none"
    """`ema` validates and keeps an exponential moving average of the weights instead of those of the latest step."""
    horizon: Annotated[Number, within(0, open_low=True)] | None = None
    """Epochs after which the weights of a step count for 1/e as much as the latest ones; 0.5 if left out."""

    @model_validator(mode="after")
    def _horizon_is_used(self) -> "AverageSpace":
        if self.horizon is not None and "ema" not in values_of(self.name):
            raise ValueError(
                'horizon is for ema only, got name = "none". Remove it, or add ema to the choices of name.'
            )
        return self

    def draw(self, suggester: Suggester) -> Average:
        """Draw the name of the average, then its horizon."""
        if pick(self.name, "average.name", suggester) == "none":
            return NoAverage()
        return EMA() if self.horizon is None else EMA(pick(self.horizon, "average.horizon", suggester))

    def draws_of(self, average: Average) -> dict[str, Any]:
        """Return the value of every parameter with which this section could give an average."""
        return {f"average.{key}": value for key, value in asdict(average).items()}
