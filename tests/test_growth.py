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


def value(schedule: str, end: float, epoch: int) -> float:
    """A curve of one that holds its rate or of one that is annealed: the latter is lower until late."""
    gap = {"none": 0.02, "one_cycle": 0.12}[schedule]
    return end - gap * (1 - epoch / EPOCHS)


def curve(schedule: str, end: float, last: int = EPOCHS) -> Curve:
    values = np.array([value(schedule, end, epoch) for epoch in range(1, last + 1)])
    return Curve(schedule, EPOCHS, values, last == EPOCHS)


def test_a_stopped_curve_gains_what_those_of_its_schedule_did() -> None:
    whole = [curve(schedule, end) for schedule in ("none", "one_cycle") for end in np.linspace(0.8, 0.9, 40)]
    growth = Growth(whole)
    for schedule, gap in (("none", 0.02), ("one_cycle", 0.12)):
        of_all = (0.02 + 0.12) / 2 * 0.85  # the median over both, which counts as two curves
        expected = (40 * gap * 0.85 + 2 * of_all) / 42
        assert growth.gain(schedule, 3 / EPOCHS) == pytest.approx(expected)
        assert growth.projected(curve(schedule, 0.87, 3)) == pytest.approx(value(schedule, 0.87, 3) + expected)
    assert growth.gain("cosine", 3 / EPOCHS) == pytest.approx(0.07 * 0.85)  # no curve of its own: that of all
    assert growth.gain("none", 1.0) == 0.0
    assert growth.projected(whole[0]) == whole[0].values[-1]


def test_curves_that_were_stopped_on_the_way_tell_of_the_way_to_there() -> None:
    """From epoch 3 to 9 there are many curves, from there to the end one."""
    growth = Growth(
        [*(curve("none", 0.8, 3) for _ in range(9)), *(curve("none", e, 9) for e in (0.8, 0.9)), curve("none", 1.0)]
    )
    assert growth.gain("none", 3 / EPOCHS) == pytest.approx(0.02 * 17 / 20)
    alone = Growth([curve("none", 0.8, 3)])
    assert alone.gain("none", 3 / EPOCHS) == 0.0, "nothing went on"


def test_an_early_stopped_training_is_whole() -> None:
    flat = Curve("none", EPOCHS, np.array([0.5, 0.7, 0.7, 0.7]), whole=True)
    assert flat.reached == 1.0
    assert Growth([flat]).gain("none", 1 / EPOCHS) == pytest.approx(0.2)


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

    assert Growth.of(trials(TrialState.COMPLETE), EPOCHS).gain("cosine", 4 / EPOCHS) == pytest.approx(
        0.1 * (20**0.5 - 2)
    )
    assert Growth.of(trials(TrialState.RUNNING), EPOCHS).gain("cosine", 4 / EPOCHS) == 0.0
