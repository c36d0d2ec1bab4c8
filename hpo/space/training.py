"""Ranges of how a network is trained: optimizers, schedules."""

from dataclasses import fields
from typing import Annotated, Literal

from pydantic import model_validator

from hpo.config import OPTIMIZERS, SCHEDULES, Augment, Optimizer, Schedule, own_fields
from hpo.documents import Section
from hpo.ranges import Flag, Integer, Number, Suggester, one_of, pick, values_of, within
from hpo.space.fields import Probability, Rate, Share, Size

OptimizerName = Literal["sgd", "sgd_momentum", "adam", "adamw", "rmsprop"]
ScheduleName = Literal["none", "cosine", "one_cycle", "step", "exponential", "warmup_cosine", "plateau"]


class AugmentSpace(Section):
    """How training images are changed from epoch to epoch; a kind is used where its strength is above 0."""

    flip: Probability = 0.0
    """Probability of being mirrored left to right."""
    shift: Annotated[Integer, within(0)] = 0
    """Pixels of black around the image, from which it is then cropped at random."""
    rotate: Annotated[Number, within(0, 180)] = 0.0
    """Degrees to either side."""
    erase: Probability = 0.0
    """Probability that a rectangle of 2 to 33 % of the image becomes black."""
    jitter: Rate = 0.0
    """Brightness, contrast and saturation change by up to this part."""

    def draw(self, suggester: Suggester) -> Augment:
        """Draw the strength of each kind."""
        return Augment(**{f.name: pick(getattr(self, f.name), f"augment.{f.name}", suggester) for f in fields(Augment)})


class Hyperparameters(Section):
    """What an optimizer may have; each is asked for only by the optimizers that know it."""

    lr: Annotated[Number, within(0, open_low=True)] | None = None
    weight_decay: Annotated[Number, within(0)] | None = None
    momentum: Rate | None = None
    nesterov: Flag | None = None
    beta1: Rate | None = None
    beta2: Rate | None = None
    alpha: Rate | None = None
    eps: Annotated[Number, within(0, open_low=True)] | None = None


class OptimizerSpace(Hyperparameters):
    """Optimizers by name; a table of an optimizer's own, as `[optimizer.sgd]`, goes before the common fields."""

    name: one_of(OptimizerName)  # type: ignore[valid-type]
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
        """Draw the optimizer, then its own hyperparameters; what the space leaves out stays at its default."""
        name = pick(self.name, "optimizer.name", suggester)
        own = getattr(self, name)
        drawn = {}
        for key in own_fields(OPTIMIZERS[name]):
            if getattr(own, key) is not None:
                drawn[key] = pick(getattr(own, key), f"optimizer.{name}.{key}", suggester)
            elif getattr(self, key) is not None:
                drawn[key] = pick(getattr(self, key), f"optimizer.{key}", suggester)
        return OPTIMIZERS[name](**drawn)


class ScheduleSpace(Section):
    """Learning-rate schedules by name, with the fields that some of them have."""

    name: one_of(ScheduleName) = "none"  # type: ignore[valid-type]
    floor: Rate | None = None
    warmup: Share | None = None
    final: Share | None = None
    gamma: Share | None = None
    parts: Annotated[Integer, within(2)] | None = None
    patience: Size | None = None

    def draw(self, suggester: Suggester) -> Schedule:
        """Draw the schedule, then its own fields."""
        name = pick(self.name, "schedule.name", suggester)
        fields = {key: getattr(self, key) for key in own_fields(SCHEDULES[name])}
        drawn = {k: pick(f, f"schedule.{k}", suggester) for k, f in fields.items() if f is not None}
        return SCHEDULES[name](**drawn)
