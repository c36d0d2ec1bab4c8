"""The figures of a report, as Plotly figures: data in, figure out."""

import copy
import math
import warnings
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState
from plotly.subplots import make_subplots

from hpo.config import TrialConfig, metric_label
from hpo.results.confirmation import Confirmation
from hpo.store.queries import StudyView, TrialView

WON, PRUNED, FAILED, MARK = "#2563eb", "#94a3b8", "#dc2626", "#f59e0b"
MAX_CURVES = 400
"""Of each kind; more would only paint over each other."""

Trials = Sequence[FrozenTrial]


def complete(trials: Trials) -> list[FrozenTrial]:
    """Return the trials that ran to their end."""
    return [t for t in trials if t.state is TrialState.COMPLETE and t.value is not None]


def by_metric(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial with the value of the metric alone, without its cost."""
    if trial.values is None or len(trial.values) == 1:
        return trial
    seen = copy.copy(trial)
    seen.values = trial.values[:1]
    return seen


def pareto_front(trials: Trials, front: Sequence[TrialView], study: StudyView) -> go.Figure:
    """Metric against cost: every finished trial, and the front as a line of steps."""
    figure = go.Figure()
    for state, name, color in ((TrialState.PRUNED, "pruned", PRUNED), (TrialState.COMPLETE, "complete", "#93c5fd")):
        found = [t for t in trials if t.state is state and t.values is not None and len(t.values) == 2]
        marker = {"color": color, "size": 6, "symbol": "x" if state is TrialState.PRUNED else "circle"}
        xs, ys = [t.values[1] for t in found], [t.values[0] for t in found]
        texts = [f"trial {t.number}" for t in found]
        figure.add_scatter(x=xs, y=ys, mode="markers", name=name, marker=marker, text=texts)
    best = sorted(front, key=lambda t: t.cost or 0.0)
    figure.add_scatter(
        x=[t.cost for t in best],
        y=[t.value for t in best],
        mode="lines+markers",
        name="front",
        line={"color": WON, "shape": "hv"},
        marker={"color": WON, "size": 10},
        text=[f"trial {t.number}" for t in best],
    )
    figure.update_layout(xaxis_title=study.cost, yaxis_title=study.metric, xaxis_type="log")
    return _styled(figure, 420)


def best_so_far(trials: Trials, baseline: float | None, metric: str) -> go.Figure:
    """Best value of the metric over finished trials, and over the time since the first began."""
    ended = sorted((t for t in trials if t.state.is_finished() and t.datetime_complete), key=_end)
    first = min((t.datetime_start for t in trials if t.datetime_start), default=None)
    values, minutes, best = [], [], -math.inf
    for trial in ended:
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            best = max(best, trial.value)
        values.append(best if math.isfinite(best) else None)
        minutes.append((_end(trial) - first).total_seconds() / 60 if first else 0.0)
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.05)
    for column, xs in ((1, list(range(1, len(ended) + 1))), (2, minutes)):
        line = {"color": WON, "shape": "hv"}
        figure.add_trace(go.Scatter(x=xs, y=values, mode="lines", line=line, showlegend=False), row=1, col=column)
    if baseline is not None:
        figure.add_hline(baseline, line_dash="dot", line_color=MARK, annotation_text="baseline")
    figure.update_xaxes(title_text="finished trials", row=1, col=1)
    figure.update_xaxes(title_text="minutes", row=1, col=2)
    figure.update_yaxes(title_text=metric, row=1, col=1)
    return _styled(figure, 340)


def _end(trial: FrozenTrial) -> datetime:
    return trial.datetime_complete or datetime.max


def learning_curves(trials: Trials, metric: str) -> go.Figure:
    """The metric by epoch of all trials: pruned ones end early, the best stands out."""
    done = complete(trials)
    pruned = [t for t in trials if t.state is TrialState.PRUNED]
    figure = go.Figure()
    for found, name, color in ((pruned, "pruned", PRUNED), (done, "complete", "#93c5fd")):
        xs, ys = _lines(found[:MAX_CURVES])
        figure.add_scatter(x=xs, y=ys, mode="lines", name=name, line={"color": color, "width": 1}, hoverinfo="skip")
    ends = [t for t in pruned[:MAX_CURVES] if t.intermediate_values]
    last = [max(t.intermediate_values) for t in ends]
    texts = [f"trial {t.number}" for t in ends]
    marker = {"color": PRUNED, "size": 5, "symbol": "x"}
    ys = [t.intermediate_values[e] for t, e in zip(ends, last, strict=True)]
    figure.add_scatter(x=last, y=ys, mode="markers", name="pruned here", marker=marker, text=texts)
    if done:
        best = max(done, key=lambda t: t.value or 0.0)
        xs, ys = _lines([best])
        line = {"color": WON, "width": 3}
        figure.add_scatter(x=xs, y=ys, mode="lines+markers", name=f"best: trial {best.number}", line=line)
    figure.update_layout(xaxis_title="epoch", yaxis_title=metric)
    ended = sorted(t.intermediate_values[max(t.intermediate_values)] for t in (*pruned, *done) if t.intermediate_values)
    if ended:  # the worst quarter would squeeze what matters; a double click shows all
        low, high = ended[len(ended) // 4], ended[-1]
        figure.update_yaxes(range=[low - 0.25 * (high - low) - 0.01, high + 0.05 * (high - low) + 0.005])
    return _styled(figure, 420)


def _lines(trials: Iterable[FrozenTrial]) -> tuple[list[float | None], list[float | None]]:
    """Return many curves as one line with gaps: one trace draws much faster than hundreds."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for trial in trials:
        points = sorted(trial.intermediate_values.items())
        xs += [*(float(epoch) for epoch, _ in points), None]
        ys += [*(value for _, value in points), None]
    return xs, ys


def search_figures(trials: Trials) -> dict[str, go.Figure]:
    """Importances, slices and parallel coordinates: Optuna's own figures."""
    seen = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED) and t.value is not None]
    done = complete(seen)
    if len(done) < 2:
        return {}
    study = optuna.create_study(direction="maximize")
    study.add_trials(done)
    names = sorted({name for t in done for name in t.params})
    common = [n for n in names if all(n in t.params for t in done)]
    figures: dict[str, go.Figure] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importances = _importances(study)
        if importances is not None:
            figures["importances"] = _styled(importances, 90 + 26 * len(common))
        figures["slices"] = _styled(_grid_of_slices(done, names), 40 + 230 * math.ceil(len(names) / 4))
        if len(common) > 1:
            figures["parallel"] = _styled(optuna.visualization.plot_parallel_coordinate(study, params=common), 460)
    return figures


def _importances(study: optuna.Study) -> go.Figure | None:
    try:
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return optuna.visualization.plot_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError):  # too few trials, or no parameter that all of them have
        return None


def _grid_of_slices(trials: list[FrozenTrial], names: list[str]) -> go.Figure:
    """Value against each parameter: points for numbers, boxes for choices."""
    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)
    figure = make_subplots(
        rows, columns, subplot_titles=names, shared_yaxes=True, vertical_spacing=0.35 / rows, horizontal_spacing=0.03
    )
    for i, name in enumerate(names):
        having = [t for t in trials if name in t.params]
        distribution = having[0].distributions[name]
        place = {"row": i // columns + 1, "col": i % columns + 1}
        values = [t.value for t in having]
        texts = [f"trial {t.number}" for t in having]
        if isinstance(distribution, optuna.distributions.CategoricalDistribution):
            xs = [str(t.params[name]) for t in having]
            box = go.Box(x=xs, y=values, boxpoints="all", pointpos=0, marker={"size": 4, "color": WON}, text=texts)
            figure.add_trace(box, **place)
        else:
            marker = {"size": 5, "color": WON, "opacity": 0.6}
            points = go.Scatter(x=[t.params[name] for t in having], y=values, mode="markers", marker=marker, text=texts)
            figure.add_trace(points, **place)
            if distribution.log:  # type: ignore[attr-defined]
                figure.update_xaxes(type="log", **place)
    figure.update_layout(showlegend=False)
    return figure


def overfitting(trials: Trials, metric: str) -> go.Figure | None:
    """The gap between training and validation accuracy against what should hold it down."""
    rows = []
    for trial in complete(trials):
        if "overfitting_gap" in trial.user_attrs and "config" in trial.user_attrs:
            config = TrialConfig.from_dict(trial.user_attrs["config"], f"trial {trial.number}")
            rates = getattr(config.model, "dropout", ())  # a network of the user's own has none that is known
            dropout = sum(rates) / max(len(rates), 1)
            rows.append((trial, dropout, config.optimizer.weight_decay, trial.user_attrs["overfitting_gap"]))
    if not rows:
        return None
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.05)
    for column, place in ((1, 1), (2, 2)):
        marker = {
            "size": 8,
            "color": [r[0].value for r in rows],
            "colorscale": "Viridis",
            "showscale": column == 2,
            "colorbar": {"title": metric},
        }
        texts = [f"trial {r[0].number}" for r in rows]
        points = go.Scatter(
            x=[r[place] for r in rows], y=[r[3] for r in rows], mode="markers", marker=marker, text=texts
        )
        figure.add_trace(points, row=1, col=column)
    figure.update_xaxes(title_text="dropout, mean over layers", row=1, col=1)
    figure.update_xaxes(title_text="weight decay", type="log", row=1, col=2)
    figure.update_yaxes(title_text="training - validation accuracy", row=1, col=1)
    figure.update_layout(showlegend=False)
    return _styled(figure, 360)


def time_spent(trials: Trials) -> go.Figure:
    """Minutes of training by what became of them."""
    spent = {"complete": 0.0, "pruned": 0.0, "failed": 0.0}
    names = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    for trial in trials:
        if trial.state in names:
            spent[names[trial.state]] += float(trial.user_attrs.get("seconds", 0.0)) / 60
    figure = go.Figure()
    for (name, minutes), color in zip(spent.items(), (WON, PRUNED, FAILED), strict=True):
        figure.add_bar(y=["training"], x=[minutes], name=name, orientation="h", marker_color=color)
    figure.update_layout(barmode="stack", xaxis_title="minutes of training, all workers together")
    return _styled(figure, 190)


def confirmed(result: Confirmation) -> go.Figure:
    """Each candidate's fresh values, their mean with its interval, and the value that the search saw."""
    figure = go.Figure()
    shown = list(reversed(result.candidates))
    names = [f"{'baseline, ' if c.baseline else ''}trial {c.number}" for c in shown]
    xs = [value for c in shown for value in c.values]
    ys = [name for c, name in zip(shown, names, strict=True) for _ in c.values]
    figure.add_scatter(x=xs, y=ys, mode="markers", name="fresh seeds", marker={"color": "#93c5fd", "size": 7})
    error = {"type": "data", "array": [c.interval.half for c in shown], "color": WON, "thickness": 2}
    figure.add_scatter(
        x=[c.mean for c in shown],
        y=names,
        mode="markers",
        name="mean, 95 %",
        error_x=error,
        marker={"color": WON, "size": 11},
    )
    figure.add_scatter(
        x=[c.searched for c in shown],
        y=names,
        mode="markers",
        name="in the search",
        marker={"color": MARK, "symbol": "diamond-open", "size": 11, "line": {"width": 2}},
    )
    figure.update_layout(xaxis_title=metric_label(result.winner.config.metric))
    return _styled(figure, 140 + 42 * len(shown))


def _styled(figure: Any, height: int) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        title=None,
        font={"size": 12},
    )
    return figure
