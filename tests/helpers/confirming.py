"""A simulated engine whose scores are known, for tests of what becomes of a study."""

import dataclasses
import random
from collections.abc import Callable

from hpo.config import (
    TrialConfig,
)
from hpo.training.engine import EpochResult, Fault
from hpo.training.simulated import SimulatedEngine


class NoisyEngine(SimulatedEngine):
    """Trainings whose score is what `top` says of the config, and luck that follows from the seed alone."""

    def __init__(self, top: Callable[[TrialConfig], float], spread: float = 0.01) -> None:
        super().__init__(capacity=4)
        self.top, self.spread = top, spread

    def step(self) -> dict[int, EpochResult | Fault]:
        outcomes = super().step()
        for key, outcome in outcomes.items():
            config = self.trials[key].config
            if isinstance(outcome, EpochResult):
                value = self.top(config) + random.Random(config.seed).gauss(0, self.spread)
                outcomes[key] = dataclasses.replace(outcome, validation_accuracy=value)
        return outcomes


BASELINE = {
    "name": "by hand",
    "params": {"mlp": {"depth": 1, "0": {"width": 8}}, "optimizer": {"name": "sgd", "lr": 0.001}},
}
