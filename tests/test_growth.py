"""The growth of learning curves: what makes trials comparable that end early or follow different schedules."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from hpo.strategy.growth import Curve, Growth, curve_of

EPOCHS = 20


RATES = {"none": 0.5, "one_cycle": 2.0}
"""What the shortfall loses over the training, as a logarithm: one that is annealed is lower until late."""


def value(schedule: str, end: float, epoch: int) -> float:
    return 1 - (1 - end) * math.exp(RATES[schedule] * (1 - epoch / EPOCHS))


def curve(schedule: str, end: float, last: int = EPOCHS) -> Curve:
    values = np.array([value(schedule, end, epoch) for epoch in range(1, last + 1)])
    return Curve(schedule, EPOCHS, values, last == EPOCHS)


def test_a_stopped_curve_gains_what_those_of_its_schedule_did() -> None:
    whole = [curve(schedule, end) for schedule in ("none", "one_cycle") for end in np.linspace(0.8, 0.9, 40)]
    growth = Growth(whole)
    of_all = (0.5 + 2.0) / 2 * 0.85  # the median over both, which counts as two curves
    for schedule, rate in RATES.items():
        expected = math.exp(-(40 * rate * 0.85 + 2 * of_all) / 42)
        assert growth.share_left(schedule, 3 / EPOCHS) == pytest.approx(expected)
        shortfall = 1 - value(schedule, 0.87, 3)
        assert growth.projected(curve(schedule, 0.87, 3)) == pytest.approx(1 - shortfall * expected)
    assert growth.share_left("cosine", 3 / EPOCHS) == pytest.approx(math.exp(-of_all))  # no curve of its own
    assert growth.share_left("none", 1.0) == 1.0
    assert growth.projected(whole[0]) == whole[0].values[-1]
    assert growth.is_known("none") and not growth.is_known("cosine")


def test_no_projection_exceeds_the_best_possible_value() -> None:
    losses = [Curve("none", 4, np.array([-2.0, -1.0, -0.5, -0.25]), whole=True) for _ in range(3)]
    stopped = Curve("none", 4, np.array([-0.4]), whole=False)
    assert Growth(losses, best=0.0).projected(stopped) == pytest.approx(-0.05)
    perfect = [Curve("none", 4, np.array([0.5, 0.9, 1.0, 1.0]), whole=True) for _ in range(3)]
    assert 0.99 < Growth(perfect).projected(Curve("none", 4, np.array([0.7]), whole=False)) < 1.0
    assert Growth(perfect).projected(Curve("none", 4, np.array([1.0]), whole=False)) == 1.0


def test_curves_that_were_stopped_on_the_way_tell_of_the_way_to_there() -> None:
    """From epoch 3 to 9 there are many curves, from there to the end one."""
    growth = Growth(
        [*(curve("none", 0.8, 3) for _ in range(9)), *(curve("none", e, 9) for e in (0.8, 0.9)), curve("none", 0.95)]
    )
    assert growth.share_left("none", 3 / EPOCHS) == pytest.approx(math.exp(-0.5 * 17 / 20))
    alone = Growth([curve("none", 0.8, 3)])
    assert alone.share_left("none", 3 / EPOCHS) == 1.0, "nothing went on"


def test_an_early_stopped_training_is_whole() -> None:
    flat = Curve("none", EPOCHS, np.array([0.5, 0.7, 0.7, 0.7]), whole=True)
    assert flat.reached == 1.0
    assert Growth([flat]).share_left("none", 1 / EPOCHS) == pytest.approx(0.3 / 0.5)


def frozen(reports: dict[int, float], state: TrialState, **attributes: Any) -> FrozenTrial:
    return optuna.trial.create_trial(
        state=state,
        value=list(reports.values())[-1] if reports else 0.0,
        intermediate_values=reports,
        params={"schedule.name": "cosine"},
        distributions={"schedule.name": CategoricalDistribution(["cosine", "none"])},
        system_attrs=attributes,
    )


@pytest.mark.parametrize(
    "trial",
    [
        frozen({}, TrialState.PRUNED),
        frozen({1: 0.5, 2: 0.0}, TrialState.PRUNED, diverged=True),
    ],
)
def test_what_has_no_curve(trial: FrozenTrial) -> None:
    assert curve_of(trial, EPOCHS) is None


def test_growth_is_learned_from_finished_trials() -> None:
    def trials(state: TrialState) -> Iterable[FrozenTrial]:
        yield frozen({e: 0.1 * math.sqrt(e) for e in range(1, EPOCHS + 1)}, state)

    share = Growth.of(trials(TrialState.COMPLETE), EPOCHS).share_left("cosine", 4 / EPOCHS)
    assert share == pytest.approx((1 - 0.1 * 20**0.5) / 0.8)
    assert Growth.of(trials(TrialState.RUNNING), EPOCHS).share_left("cosine", 4 / EPOCHS) == 1.0
