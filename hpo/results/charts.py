"""Plotly figures of a study's trials: data in, figure out. Used by the report and by the Python interface.

All take Optuna's trials; `searched_trials` chooses those of a study that its search learned from.
"""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState
from plotly.subplots import make_subplots

from hpo.errors import StudyError
from hpo.optuna_compat import quiet
from hpo.store.record import TrialAttributes
from hpo.store.views import TrialView

BEST, COMPLETE, PRUNED, FAILED, MARK = "#2563eb", "#93c5fd", "#94a3b8", "#dc2626", "#f59e0b"
"""Colours: of the best or of what is measured, of complete, pruned and failed trials, and of a reference."""
MAX_CURVES = 400
"""Most learning curves of complete, and of pruned trials that are drawn; more would only cover each other."""

Trials = Sequence[FrozenTrial]


def searched_trials(trials: Trials) -> list[FrozenTrial]:
    """Return the trials that count, each with the value of the metric alone, without its cost.

    Left out are trials that went on under another number, also as second chances, broke a constraint, or lie outside
    the study's space.
    """
    counted = [trial for trial in trials if _counts(TrialAttributes.of(trial))]
    revived = {TrialAttributes.of(trial).revives for trial in counted if trial.state.is_finished()}
    return [_by_metric(trial) for trial in counted if trial.number not in revived]


def _counts(attributes: TrialAttributes) -> bool:
    return attributes.excused is None and attributes.outside is None


def _by_metric(trial: FrozenTrial) -> FrozenTrial:
    if trial.values is None or len(trial.values) == 1:
        return trial
    reduced = copy.copy(trial)
    reduced.values = trial.values[:1]
    return reduced


def complete(trials: Trials) -> list[FrozenTrial]:
    """Return the trials that were trained to their end."""
    return [t for t in trials if t.state is TrialState.COMPLETE and t.value is not None]


def history(trials: Trials) -> tuple[list[float | None], list[float]]:
    """Return the best value after each ended trial, None before there is any, and the minutes since the first start."""
    ended = sorted((t for t in trials if t.state.is_finished() and t.datetime_complete), key=_end)
    first = min((t.datetime_start for t in trials if t.datetime_start), default=None)
    values: list[float | None] = []
    minutes, best = [], -math.inf
    for trial in ended:
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            best = max(best, trial.value)
        values.append(best if math.isfinite(best) else None)
        minutes.append((_end(trial) - first).total_seconds() / 60 if first else 0.0)
    return values, minutes


def history_figure(trials: Trials, metric: str, *, baseline: float | None = None) -> go.Figure:
    """Return the best value so far, over finished trials and over the minutes since the first one started.

    `metric` labels the axis; `baseline` is a value to compare with.
    """
    values, minutes = history(trials)
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.05)
    for column, xs in ((1, list(range(1, len(values) + 1))), (2, minutes)):
        line = {"color": BEST, "shape": "hv"}
        figure.add_trace(go.Scatter(x=xs, y=values, mode="lines", line=line, showlegend=False), row=1, col=column)
    if baseline is not None:
        figure.add_hline(baseline, line_dash="dot", line_color=MARK, annotation_text="baseline")
    figure.update_xaxes(title_text="finished trials", row=1, col=1)
    figure.update_xaxes(title_text="minutes", row=1, col=2)
    figure.update_yaxes(title_text=metric, row=1, col=1)
    return styled(figure, 340)


def _end(trial: FrozenTrial) -> datetime:
    return trial.datetime_complete or datetime.max


def curves_figure(trials: Trials, metric: str) -> go.Figure:
    """Return the metric by epoch for all trials: pruned ones end early, the best one is drawn thicker.

    Triangles show what rungs compared, where that was the value promised for the end of training.
    """
    finished = complete(trials)
    pruned = [t for t in trials if t.state is TrialState.PRUNED]
    figure = go.Figure()
    for group, name, color in ((pruned, "pruned", PRUNED), (finished, "complete", COMPLETE)):
        xs, ys = _lines(group[:MAX_CURVES])
        figure.add_scatter(x=xs, y=ys, mode="lines", name=name, line={"color": color, "width": 1}, hoverinfo="skip")
    ends = [(t, max(t.intermediate_values)) for t in pruned[:MAX_CURVES] if t.intermediate_values]
    figure.add_scatter(
        x=[epoch for _, epoch in ends],
        y=[t.intermediate_values[epoch] for t, epoch in ends],
        mode="markers",
        name="pruned here",
        marker={"color": PRUNED, "size": 5, "symbol": "x"},
        text=[f"trial {t.number}" for t, _ in ends],
    )
    if finished:
        best = max(finished, key=lambda t: t.value or 0.0)
        xs, ys = _lines([best])
        line = {"color": BEST, "width": 3}
        figure.add_scatter(x=xs, y=ys, mode="lines+markers", name=f"best: trial {best.number}", line=line)
    promised = [(t, int(e), v) for t in trials[:MAX_CURVES] for e, v in (TrialAttributes.of(t).compared or {}).items()]
    if promised:  # what a rung compared, where that was not the value as it stood
        figure.add_scatter(
            x=[epoch for _, epoch, _ in promised],
            y=[value for _, _, value in promised],
            mode="markers",
            name="compared at a rung: promised for the end",
            marker={"color": MARK, "size": 6, "symbol": "triangle-up-open"},
            text=[f"trial {t.number}" for t, _, _ in promised],
        )
    figure.update_layout(xaxis_title="epoch", yaxis_title=metric)
    last = sorted(
        t.intermediate_values[max(t.intermediate_values)] for t in (*pruned, *finished) if t.intermediate_values
    )
    if last:  # the worst quarter would squeeze what matters; a double click shows all
        low, high = last[len(last) // 4], last[-1]
        figure.update_yaxes(range=[low - 0.25 * (high - low) - 0.01, high + 0.05 * (high - low) + 0.005])
    return styled(figure, 420)


def _lines(trials: Iterable[FrozenTrial]) -> tuple[list[float | None], list[float | None]]:
    """Return many curves as one line with gaps: one trace draws much faster than hundreds."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for trial in trials:
        points = sorted(trial.intermediate_values.items())
        xs += [*(float(epoch) for epoch, _ in points), None]
        ys += [*(value for _, value in points), None]
    return xs, ys


def pareto_figure(trials: Trials, front: Sequence[TrialView], *, metric: str, cost: str) -> go.Figure:
    """Return metric against cost: complete and pruned trials as points, the Pareto front as a line of steps.

    `trials` have two values, the metric and the cost; `front` are the trials that no other one beats in both.
    """
    figure = go.Figure()
    for state, name, color in ((TrialState.PRUNED, "pruned", PRUNED), (TrialState.COMPLETE, "complete", COMPLETE)):
        group = [t for t in trials if t.state is state and t.values is not None and len(t.values) == 2]
        figure.add_scatter(
            x=[t.values[1] for t in group],
            y=[t.values[0] for t in group],
            mode="markers",
            name=name,
            marker={"color": color, "size": 6, "symbol": "x" if state is TrialState.PRUNED else "circle"},
            text=[f"trial {t.number}" for t in group],
        )
    best = sorted(front, key=lambda t: t.cost or 0.0)
    figure.add_scatter(
        x=[t.cost for t in best],
        y=[t.value for t in best],
        mode="lines+markers",
        name="front",
        line={"color": BEST, "shape": "hv"},
        marker={"color": BEST, "size": 10},
        text=[f"trial {t.number}" for t in best],
    )
    figure.update_layout(xaxis_title=cost, yaxis_title=metric, xaxis_type="log")
    return styled(figure, 420)


def importances_figure(trials: Trials) -> go.Figure:
    """Return the share of each parameter in the differences between complete trials, by PED-ANOVA.

    Only parameters that all complete trials have are compared. Raises: StudyError for too few trials, or none such.
    """
    study = _study(trials)
    with quiet():
        try:
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            figure = optuna.visualization.plot_param_importances(study, evaluator=evaluator)
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise StudyError(f"importances: must have complete trials that can be compared: {reason}") from error
    return styled(figure, 90 + 26 * len(common_parameters(trials)))


def parallel_figure(trials: Trials, metric: str) -> go.Figure:
    """Return parallel coordinates: a line for each complete trial, an axis for each parameter that all of them have.

    `metric` labels the axis of the values. Raises: StudyError for too few trials or parameters.
    """
    study, names = _study(trials), common_parameters(trials)
    if len(names) < 2:
        raise StudyError(f"parallel coordinates: must have two parameters that all trials have, got {len(names)}.")
    with quiet():
        figure = optuna.visualization.plot_parallel_coordinate(study, names, target=_value, target_name=metric)
    return styled(figure, 460)


def _value(trial: FrozenTrial) -> float:
    return float(trial.values[0])


def common_parameters(trials: Trials) -> list[str]:
    """Return the names of the parameters that all complete trials have, sorted."""
    done = complete(trials)
    return sorted(name for name in {n for t in done for n in t.params} if all(name in t.params for t in done))


def _study(trials: Trials) -> optuna.Study:
    """Return a study in memory with the complete trials, for Optuna's own figures."""
    done = complete(trials)
    if len(done) < 2:
        raise StudyError(f"figure: must have at least two complete trials, got {len(done)}. Run more trials.")
    with quiet():
        study = optuna.create_study(direction="maximize", storage=optuna.storages.InMemoryStorage())
    study.add_trials(_with_times(trial) for trial in done)
    return study


def _with_times(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial with a start and an end, as Optuna demands of a complete one; a mended store may lack them."""
    shown = copy.copy(trial)
    shown.datetime_start = trial.datetime_start or trial.datetime_complete or datetime.min
    shown.datetime_complete = trial.datetime_complete or shown.datetime_start
    return shown


def optional(draw: Callable[[Trials], go.Figure], trials: Trials) -> go.Figure | None:
    """Return a figure, or None where the trials are too few for it."""
    try:
        return draw(trials)
    except StudyError:
        return None


def styled(figure: Any, height: int) -> go.Figure:
    """Return a figure in the style that all of them share, `height` pixels high."""
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        title=None,
        font={"size": 12},
    )
    return figure
