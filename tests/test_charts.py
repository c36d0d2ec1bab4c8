"""The figures: what is drawn is what the trials hold."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.errors import StudyError
from hpo.results import charts, report_charts

START = datetime(2026, 1, 1)
LR, NORM = FloatDistribution(1e-4, 1.0, log=True), CategoricalDistribution(["none", "batch"])


def trial(number: int, value: float, state: TrialState = TrialState.COMPLETE, **changes: Any) -> FrozenTrial:
    params: dict[str, Any] = {"lr": 10.0 ** -(1 + number % 3), "norm": ["none", "batch"][number % 2]}
    distributions: dict[str, BaseDistribution] = {"lr": LR, "norm": NORM}
    curve = {epoch: value * epoch / 3 for epoch in range(1, 4 if state is TrialState.COMPLETE else 2)}
    fields: dict[str, Any] = {
        "state": state,
        "params": params,
        "distributions": distributions,
        "intermediate_values": curve,
        "user_attrs": {"seconds": 60.0},
        "value": None if state is TrialState.FAIL else value,
    } | changes
    made = create_trial(**fields)
    made.number = number
    made.datetime_start = START + timedelta(minutes=number)
    made.datetime_complete = START + timedelta(minutes=number + 1)
    return made


TRIALS = [
    trial(0, 0.5),
    trial(1, 0.7),
    trial(2, 0.2, TrialState.PRUNED),
    trial(3, 0.6),
    trial(4, 0.0, TrialState.FAIL),
    trial(5, 0.9),
]


def test_the_history_is_the_running_maximum() -> None:
    figure = charts.history_figure(TRIALS, "validation accuracy", baseline=0.55)
    by_trial, by_time = figure.data
    assert list(by_trial.y) == list(by_time.y) == [0.5, 0.7, 0.7, 0.7, 0.7, 0.9]
    assert list(by_trial.x) == [1, 2, 3, 4, 5, 6] and list(by_time.x) == [1, 2, 3, 4, 5, 6]
    assert figure.layout.shapes[0].y0 == 0.55 and figure.layout.yaxis.title.text == "validation accuracy"
    assert charts.history_figure([], "x").data[0].x == ()


def test_the_curves_are_those_of_the_trials() -> None:
    pruned, complete, ends, best = charts.curves_figure(TRIALS, "accuracy").data
    assert list(pruned.x) == [1, None] and list(ends.x) == [1] and list(ends.text) == ["trial 2"]
    assert [x for x in complete.x if x is not None] == [1, 2, 3] * 4
    assert best.name == "best: trial 5" and best.y[2] == pytest.approx(0.9)
    compared = [*TRIALS, trial(9, 0.3, TrialState.PRUNED, user_attrs={"compared": {"1": 0.8}})]
    [promised] = charts.curves_figure(compared, "accuracy").data[4:]
    assert (list(promised.x), list(promised.y), list(promised.text)) == ([1], [0.8], ["trial 9"])


def test_importances_rank_what_decides() -> None:
    chance = np.random.default_rng(0)
    trials = []
    for number in range(60):
        lr, noise = 10 ** chance.uniform(-4, 0), chance.uniform(0, 1)
        params, distributions = {"lr": lr, "noise": noise}, {"lr": LR, "noise": FloatDistribution(0, 1)}
        trials.append(trial(number, 1 - abs(np.log10(lr) + 2) / 4, params=params, distributions=distributions))
    [bars] = charts.importances_figure(trials).data
    shares = dict(zip(bars.y, bars.x, strict=True))
    assert shares["lr"] > 5 * shares["noise"]


def test_parallel_coordinates_have_an_axis_for_each_common_parameter() -> None:
    params, distributions = {"lr": 0.1, "norm": "none", "rare": 0.5}, {"lr": LR, "norm": NORM, "rare": LR}
    only = trial(6, 0.8, params=params, distributions=distributions)
    figure = charts.parallel_figure([*TRIALS, only], "accuracy")
    assert list(figure.layout.xaxis.ticktext) == ["accuracy", "lr", "norm"]
    assert sum(list(trace.x) == [0, 1, 2] for trace in figure.data) == 5, "one line for each complete trial"
    assert charts.common_parameters([*TRIALS, only]) == ["lr", "norm"]


def test_too_few_trials_are_an_error_in_one_line() -> None:
    draws: list[Any] = [
        charts.importances_figure,
        lambda t: charts.parallel_figure(t, "x"),
        report_charts.slices_figure,
    ]
    for draw in draws:
        with pytest.raises(StudyError, match=r"must have .*two complete trials.*got 1. Run more trials.") as caught:
            draw(TRIALS[:1])
        assert "\n" not in str(caught.value) and charts.optional(draw, TRIALS[:1]) is None
    single = [trial(i, i / 5, params={"lr": 0.1}, distributions={"lr": LR}) for i in range(5)]
    with pytest.raises(StudyError, match="must have two parameters that all trials have, got 1"):
        charts.parallel_figure(single, "accuracy")


def test_searched_trials_count_and_have_one_value() -> None:
    both = create_trial(state=TrialState.COMPLETE, values=[0.8, 1000.0])
    excused = trial(7, 0.0, TrialState.FAIL, user_attrs={"excused": "retried as trial 8"})
    kept = charts.searched_trials([both, excused, TRIALS[0]])
    assert [t.values for t in kept] == [[0.8], [0.5]]
    assert both.values == [0.8, 1000.0], "the trial itself is not changed"


def test_slices_and_time_show_every_trial() -> None:
    slices = report_charts.slices_figure(TRIALS)
    assert {type(trace).__name__ for trace in slices.data} == {"Scatter", "Box"}
    assert all(len(trace.y) == 4 for trace in slices.data) and slices.layout.xaxis.type == "log"
    minutes = {bar.name: bar.x[0] for bar in report_charts.time_figure(TRIALS).data}
    assert minutes == {"complete": 4.0, "pruned": 1.0, "failed": 1.0}


def test_the_front_is_drawn_in_the_order_of_cost() -> None:
    trials = [create_trial(state=TrialState.COMPLETE, values=v) for v in ([0.5, 10.0], [0.9, 1000.0], [0.4, 500.0])]

    class View:
        def __init__(self, number: int, value: float, cost: float) -> None:
            self.number, self.value, self.cost = number, value, cost

    front: Any = [View(1, 0.9, 1000.0), View(0, 0.5, 10.0)]
    figure = charts.pareto_figure(trials, front, metric="accuracy", cost="parameters")
    _, complete, line = figure.data
    assert list(line.x) == [10.0, 1000.0] and list(line.y) == [0.5, 0.9] and len(complete.x) == 3
    assert figure.layout.xaxis.title.text == "parameters" and figure.layout.yaxis.title.text == "accuracy"
