"""Cost-aware draws: times predicted from the study's own trials, and what would train too long drawn again."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from hpo.recipe import Budget, Pruner, Sampler, StudyRecipe
from hpo.store import studies
from hpo.store.database.connect import Store
from hpo.strategy.training_time import LEAST_TRIALS, TrainingTime, chance_to_keep, seconds_per_epoch
from hpo.training.engine import EpochResult, Fault
from hpo.training.simulated import SimulatedEngine
from tests.helpers.studies import on_sqlite, small_space, trials_of, work
from tests.test_sampler import COMPLETE, PRUNED, Trials, rising

BATCHES, NORMS = [16, 32, 64, 128, 256], ["none", "batch"]
BATCH = CategoricalDistribution(BATCHES)
WIDTH = IntDistribution(8, 512, step=8)
NORM = CategoricalDistribution(NORMS)
MOMENTUM = FloatDistribution(0.8, 0.98)


def params(batch: int, width: int, norm: str, momentum: float | None = None) -> dict[str, tuple[Any, BaseDistribution]]:
    drawn: dict[str, tuple[Any, BaseDistribution]] = {
        "batch_size": (batch, BATCH),
        "mlp.width": (width, WIDTH),
        "mlp.norm": (norm, NORM),
    }
    return drawn if momentum is None else drawn | {"optimizer.momentum": (momentum, MOMENTUM)}


def seconds(batch: int, width: int, norm: str) -> float:
    """The time of an epoch, on a machine on which a step takes a time of its own."""
    return 1000 / batch * (1 + width / 100) * (1.5 if norm == "batch" else 1.0)


def random_trials(trials: Trials, count: int) -> list[FrozenTrial]:
    random, added = np.random.default_rng(0), []
    for _ in range(count):
        batch, width, norm = int(random.choice(BATCHES)), 8 * int(random.integers(1, 65)), str(random.choice(NORMS))
        epochs = int(random.choice([3, 10]))
        momentum = float(random.uniform(0.8, 0.98)) if random.random() < 0.5 else None
        trial = trials.add(
            COMPLETE if epochs == 10 else PRUNED, rising(0.9, epochs), params(batch, width, norm, momentum)
        )
        trial.user_attrs = {"seconds": epochs * seconds(batch, width, norm) * random.lognormal(0, 0.1)}
        added.append(trial)
    return added


@pytest.mark.parametrize("count", [LEAST_TRIALS, 60])
def test_times_are_learned_from_numbers_and_choices(count: int) -> None:
    time = TrainingTime.learned_from(random_trials(Trials(), count))
    assert time is not None

    def relative(*drawn: Any) -> float:
        return math.exp(time.log_ratio({name: value for name, (value, _) in params(*drawn).items()}))

    ratio = relative(16, 256, "none") / relative(256, 256, "none")
    assert (8 if count > LEAST_TRIALS else 3) < ratio < 20, "16 times the steps"
    if count > LEAST_TRIALS:
        assert 1.2 < relative(64, 256, "batch") / relative(64, 256, "none") < 1.8
        assert relative(64, 512, "none") > 1.5 * relative(64, 64, "none")


def test_a_draw_is_kept_as_likely_as_it_is_cheap() -> None:
    trials = Trials()
    finished = random_trials(trials, 60)
    time = TrainingTime.learned_from(finished)
    assert time is not None
    best = [(trials.add(COMPLETE, rising(0.95), params(128, 128, "none")), 1.0)]
    chances = [chance_to_keep(time, {"batch_size": b, "mlp.width": 128, "mlp.norm": "none"}, best) for b in (16, 128)]
    assert 0.08 < chances[0] < 0.25 and chances[1] == 1.0
    assert chance_to_keep(time, {"batch_size": 256, "mlp.width": 8, "mlp.norm": "none"}, best) == 1.0
    mixed = [*best, (trials.add(COMPLETE, rising(0.95), params(16, 128, "none")), 1.0)]
    assert chances[0] < chance_to_keep(time, {"batch_size": 16, "mlp.width": 128, "mlp.norm": "none"}, mixed) < 0.7


def test_longer_trainings_take_longer() -> None:
    trials = Trials()
    for epochs in (5, 10) * 10:
        drawn = params(64, 64, "none") | {"epochs": (epochs, IntDistribution(1, 20))}
        trials.add(COMPLETE, rising(0.9), drawn).user_attrs = {"seconds": 10.0}
    time = TrainingTime.learned_from(trials.cache.visible_trials())
    assert time is not None
    drawn = {name: value for name, (value, _) in params(64, 64, "none").items()}
    assert time.log_ratio(drawn | {"epochs": 20}) == pytest.approx(math.log(4) + time.log_ratio(drawn | {"epochs": 5}))


def test_without_times_nothing_is_predicted() -> None:
    trials = Trials()
    unknown: list[dict[str, float]] = [{}, {"seconds": 0.0}, {"seconds": -1.0}, {"seconds": math.nan}]
    for value in unknown * LEAST_TRIALS:
        trials.add(COMPLETE, rising(0.9)).user_attrs = value
    trials.add(PRUNED, []).user_attrs = {"seconds": 3.0}
    known = trials.cache.visible_trials()
    assert {seconds_per_epoch(t) for t in known} == {None}
    assert TrainingTime.learned_from(known) is None


def test_a_range_that_was_wider_once_is_no_fault() -> None:
    """After a change of the space, zero of a range that now begins at one."""
    trials = Trials()
    for _ in range(LEAST_TRIALS):
        trials.add(COMPLETE, rising(0.9), {}).user_attrs = {"seconds": 1.0}
    assert TrainingTime.learned_from(trials.cache.visible_trials()) is not None, "a space without ranges"
    for low in (0, 1) * LEAST_TRIALS:
        width = IntDistribution(low, 8)
        trials.add(COMPLETE, rising(0.9), {"mlp.width": (low, width)}).user_attrs = {"seconds": 1.0 + low}
    assert TrainingTime.learned_from(trials.cache.visible_trials()) is not None


class TimedEngine(SimulatedEngine):
    """Says that a training took the longer the smaller its batch is, and takes no time."""

    def step(self) -> dict[int, EpochResult | Fault]:
        timed = super().step()
        for key, outcome in timed.items():
            assert isinstance(outcome, EpochResult)
            longer = replace(outcome, seconds=1000 / self.trials[key].config.batch_size)
            timed[key] = self.trials[key].history[-1] = longer
        return timed


@on_sqlite
def test_a_search_that_minds_its_time_trains_fewer_of_the_slow(store: Store, tmp_path: Path) -> None:
    slow, seconds_in_all = [], []
    for cost_aware in (False, True):
        recipe = StudyRecipe(
            budget=Budget(trials=60),
            pruner=Pruner(name="none"),
            sampler=Sampler(name="random", startup_trials=10, cost_aware=cost_aware),
        )
        space = small_space(batch_size={"choices": [8, 16, 32, 64, 128, 256]})
        assert studies.create(store, f"aware-{cost_aware}", "small", space, recipe, "f" * 64)
        study = studies.load_study(store, f"aware-{cost_aware}")
        assert work(store, study, TimedEngine(), tmp_path / study.name) is not None
        trials = trials_of(store, study)
        slow.append(sum(t.params["batch_size"] <= 16 for t in trials))
        seconds_in_all.append(sum(t.user_attrs["seconds"] for t in trials))
    assert slow[1] < slow[0] / 2 and seconds_in_all[1] < 0.7 * seconds_in_all[0]


def test_a_grid_has_every_configuration_once() -> None:
    with pytest.raises(ValueError, match="cost_aware: a grid draws each of its configurations once, got true"):
        Sampler(name="grid", cost_aware=True)
