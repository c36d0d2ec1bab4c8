"""The figures that only a report has: each parameter, overfitting, time, and the confirmation."""

import math

import plotly.graph_objects as go
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState
from plotly.subplots import make_subplots

from hpo.config import metric_label
from hpo.errors import StudyError
from hpo.results.candidates import Confirmation
from hpo.results.charts import BEST, COMPLETE, FAILED, MARK, PRUNED, Trials, complete, styled
from hpo.store.record import TrialAttributes


def slices_figure(trials: Trials) -> go.Figure:
    """Return the value against each parameter of complete trials: points for numbers, boxes for choices.

    Raises: StudyError for less than two complete trials.
    """
    done = complete(trials)
    names = sorted({name for t in done for name in t.params})
    if len(done) < 2 or not names:
        raise StudyError(f"slices: must have two complete trials with parameters, got {len(done)}. Run more trials.")
    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)
    figure = make_subplots(
        rows, columns, subplot_titles=names, shared_yaxes=True, vertical_spacing=0.35 / rows, horizontal_spacing=0.03
    )
    for i, name in enumerate(names):
        having = [t for t in done if name in t.params]
        distribution = having[0].distributions[name]
        place = {"row": i // columns + 1, "col": i % columns + 1}
        values = [t.value for t in having]
        texts = [f"trial {t.number}" for t in having]
        if isinstance(distribution, CategoricalDistribution):
            xs = [str(t.params[name]) for t in having]
            box = go.Box(x=xs, y=values, boxpoints="all", pointpos=0, marker={"size": 4, "color": BEST}, text=texts)
            figure.add_trace(box, **place)
        else:
            marker = {"size": 5, "color": BEST, "opacity": 0.6}
            points = go.Scatter(x=[t.params[name] for t in having], y=values, mode="markers", marker=marker, text=texts)
            figure.add_trace(points, **place)
            if distribution.log:  # type: ignore[attr-defined]
                figure.update_xaxes(type="log", **place)
    figure.update_layout(showlegend=False)
    return styled(figure, 40 + 230 * rows)


def overfitting_figure(trials: Trials, metric: str) -> go.Figure | None:
    """Return training minus validation accuracy against dropout and weight decay; None where no trial knows it."""
    points = []
    for trial in complete(trials):
        attributes = TrialAttributes.of(trial)
        if attributes.overfitting_gap is not None and attributes.config is not None:
            config = attributes.training_config(trial.number)
            rates = getattr(config.model, "dropout", ())  # a user's own network has no rates that are known
            dropout = sum(rates) / max(len(rates), 1)
            points.append((trial, dropout, config.optimizer.weight_decay, attributes.overfitting_gap))
    if not points:
        return None
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.05)
    for column in (1, 2):
        marker = {
            "size": 8,
            "color": [trial.value for trial, *_ in points],
            "colorscale": "Viridis",
            "showscale": column == 2,
            "colorbar": {"title": metric},
        }
        xs, gaps = [point[column] for point in points], [point[3] for point in points]
        texts = [f"trial {trial.number}" for trial, *_ in points]
        figure.add_trace(go.Scatter(x=xs, y=gaps, mode="markers", marker=marker, text=texts), row=1, col=column)
    figure.update_xaxes(title_text="dropout, mean over layers", row=1, col=1)
    figure.update_xaxes(title_text="weight decay", type="log", row=1, col=2)
    figure.update_yaxes(title_text="training - validation accuracy", row=1, col=1)
    figure.update_layout(showlegend=False)
    return styled(figure, 360)


def time_figure(trials: Trials) -> go.Figure:
    """Return the minutes of training that complete, pruned and failed trials took."""
    figure = go.Figure()
    for state, name, color in (
        (TrialState.COMPLETE, "complete", BEST),
        (TrialState.PRUNED, "pruned", PRUNED),
        (TrialState.FAIL, "failed", FAILED),
    ):
        minutes = sum(TrialAttributes.of(t).seconds or 0.0 for t in trials if t.state is state) / 60
        figure.add_bar(y=["training"], x=[minutes], name=name, orientation="h", marker_color=color)
    figure.update_layout(barmode="stack", xaxis_title="minutes of training, all workers together")
    return styled(figure, 190)


def confirmation_figure(result: Confirmation) -> go.Figure:
    """Return each candidate's values when trained again, their mean with its interval, and its value in the search."""
    figure = go.Figure()
    candidates = list(reversed(result.candidates))
    names = [f"{'baseline, ' if c.baseline else ''}trial {c.number}" for c in candidates]
    figure.add_scatter(
        x=[value for c in candidates for value in c.values],
        y=[name for c, name in zip(candidates, names, strict=True) for _ in c.values],
        mode="markers",
        name="trained again",
        marker={"color": COMPLETE, "size": 7},
    )
    figure.add_scatter(
        x=[c.mean for c in candidates],
        y=names,
        mode="markers",
        name="mean, 95 %",
        error_x={"type": "data", "array": [c.interval.half for c in candidates], "color": BEST, "thickness": 2},
        marker={"color": BEST, "size": 11},
    )
    figure.add_scatter(
        x=[c.searched for c in candidates],
        y=names,
        mode="markers",
        name="in the search",
        marker={"color": MARK, "symbol": "diamond-open", "size": 11, "line": {"width": 2}},
    )
    figure.update_layout(xaxis_title=metric_label(result.winner.config.metric))
    return styled(figure, 140 + 42 * len(candidates))
