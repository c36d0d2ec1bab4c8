"""A study as one page that needs no network: what was searched, what was found, what to do next."""

import base64
import gzip
import html
import json
from pathlib import Path
from string import Template
from typing import Any

import plotly
import plotly.graph_objects as go
from optuna.trial import FrozenTrial

from hpo import documents
from hpo.config import TrialConfig, metric_label
from hpo.results import charts, confirmation
from hpo.results.confirmation import Confirmation
from hpo.runner.dashboard_note import data_name
from hpo.store import queries
from hpo.store.database import trial_rows
from hpo.store.database.connect import Store
from hpo.store.database.url import shown
from hpo.store.leases.stopping import EXCUSED, OUTSIDE
from hpo.store.queries import StudyView
from hpo.store.studies import StudyRecord

_PAGE = Template((Path(__file__).parent / "report.html").read_text(encoding="utf-8"))
TOP = 15
"""Rows of the leaderboard."""

Section = tuple[str, str, str]
"""Title, explanation, content as HTML."""


def report(store: Store, study: StudyRecord, commands: str) -> str:
    """Return a study's report as HTML: below 5 MB, drawn as it scrolls into sight."""
    with store.read() as connection:
        state = queries.study(connection, study.study_id)
        everything = trial_rows.load_trials(connection, study.study_id)
        kinds = queries.failure_kinds(connection, study.study_id)
        baseline = queries.baseline_trial(connection, study.study_id)
        front = queries.front(connection, study.study_id)
    own = [charts.by_metric(t) for t in everything if EXCUSED not in t.user_attrs and OUTSIDE not in t.system_attrs]
    result = confirmation.evaluate(store, study)
    figures: dict[str, go.Figure] = {}
    sections = _sections(study, own, result, figures, kinds, baseline.value if baseline else None)
    if len(front) > 0:
        figures["front"] = charts.pareto_front(everything, front, state)
        explained = "Each trial of the front is the best of those that cost no more than it."
        content = f'<div class=figure id="front" style="height:{int(figures["front"].layout.height)}px"></div>'
        sections.insert(1, ("Pareto front", explained, content))
    sections.append(("To go on", "", f"<pre>{_text(commands)}</pre>"))
    drawn = {name: json.loads(figure.to_json()) for name, figure in figures.items()}
    return _PAGE.substitute(
        title=_text(study.name),
        subtitle=_text(study.space.title or study.space_name),
        tiles=_tiles(state, own, result, baseline.value if baseline else None),
        sections="\n".join(
            f"<section><h2>{_text(title)}</h2><p>{_text(explained)}</p>{content}</section>"
            for title, explained, content in sections
        ),
        figures=json.dumps(drawn).replace("</", "<\\/"),
        plotly=_plotly(),
        footer=_text(f"{shown(store.url)} · data {study.fingerprint[:16]}"),
    )


def _plotly() -> str:
    """Return Plotly's library, compressed, as text: a third of its size; browsers unpack it themselves."""
    source = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    return base64.b64encode(gzip.compress(source.read_bytes(), 9)).decode()


def _text(value: object) -> str:
    return html.escape(str(value))


def _tiles(state: StudyView, own: list[FrozenTrial], result: Confirmation | None, baseline: float | None) -> str:
    seconds = sum(float(t.user_attrs.get("seconds", 0.0)) for t in own)
    counts = state.counts
    outside = f", {state.outside} outside the space that was set since" if state.outside else ""
    tiles = [
        (f"{state.finished}", f"trials finished, {counts['PRUNED']} of them pruned{outside}, {counts['FAIL']} failed"),
        ("-" if state.best_value is None else f"{state.best_value:.4f}", f"best {state.metric} in the search"),
        ("-" if baseline is None else f"{baseline:.4f}", "the baseline's"),
        (f"{seconds / 60:.1f} min", "of training, all workers together"),
    ]
    if result is not None:
        tiles.append(
            (f"{result.winner.mean:.4f}", f"the winner's mean on fresh seeds, ± {result.winner.interval.half:.4f}")
        )
    return "".join(f"<div class=tile><b>{_text(value)}</b><span>{_text(what)}</span></div>" for value, what in tiles)


def _sections(
    study: StudyRecord,
    own: list[FrozenTrial],
    result: Confirmation | None,
    figures: dict[str, go.Figure],
    kinds: dict[str, int],
    baseline: float | None,
) -> list[Section]:
    def figure(name: str, made: go.Figure) -> str:
        figures[name] = made
        return f'<div class=figure id="{name}" style="height:{int(made.layout.height)}px"></div>'

    metric = metric_label(study.metric)
    sections: list[Section] = [("What was searched", "", _searched(study))]
    if result is not None:
        explained = (
            f"Trial {result.winner.number} is {result.verdict}. Diamonds are what the search saw: the best of many."
        )
        sections.append(
            ("Confirmation", explained, figure("confirmed", charts.confirmed(result)) + _confirmation(result))
        )
    else:
        sections.append(("Confirmation", f"Not done: the best may be luck. To know: hpo confirm {study.name}", ""))
    sections.append(("The best trials", "", _leaderboard(own, metric)))
    best = figure("best", charts.best_so_far(own, baseline, metric))
    sections.append(("Best so far", "Over finished trials, and over time.", best))
    curves = figure("curves", charts.learning_curves(own, metric))
    sections.append(("Learning curves", "Crosses mark where a trial was pruned.", curves))
    found = charts.search_figures(own)
    explanations = {
        "importances": ("Importances", "PED-ANOVA over the complete trials, of the parameters that all of them have."),
        "slices": ("Each choice", f"Complete trials: {metric} against each parameter."),
        "parallel": ("Parallel coordinates", "Drag along an axis to choose trials."),
    }
    sections += [(*explanations[name], figure(name, made)) for name, made in found.items()]
    gap = charts.overfitting(own, metric)
    if gap is not None:
        sections.append(
            ("Overfitting", "Training minus validation accuracy against regularization.", figure("gap", gap))
        )
    rows = "".join(f"<tr><td>{_text(kind)}</td><td>{number}</td></tr>" for kind, number in sorted(kinds.items()))
    failures = f"<table><tr><th>fault</th><th>trials</th></tr>{rows}</table>" if rows else "<p>No trial failed.</p>"
    sections.append(("Time and failures", "", figure("time", charts.time_spent(own)) + failures))
    return sections


def _searched(study: StudyRecord) -> str:
    recipe = study.recipe
    lines = [f"space {study.space_name}, data {data_name(study)}"]
    lines.append(f"sampler {recipe.sampler.name}, pruner {recipe.pruner.name}, seed {recipe.seed}")
    content = documents.dump(study.space)
    for key in ("title", "data", "baselines"):
        content.pop(key, None)
    rows = "".join(f"<tr><td>{_text(name)}</td><td>{_text(rule)}</td></tr>" for name, rule in _flat(content))
    summary = "".join(f"<p>{_text(line)}</p>" for line in lines)
    return f"{summary}<details><summary>ranges</summary><table>{rows}</table></details>"


def _flat(content: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return a space's fields as (dotted name, what it may be)."""
    rows: list[tuple[str, str]] = []
    for key, value in content.items():
        if isinstance(value, dict) and not {"low", "choices"} & value.keys():
            rows += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, dict) and "choices" in value:
            rows.append((prefix + key, "one of " + ", ".join(map(str, value["choices"]))))
        elif isinstance(value, dict):
            log = ", logarithmic" if value.get("log") else ""
            rows.append((prefix + key, f"{value['low']:g} to {value['high']:g}{log}"))
        elif value is not None:
            rows.append((prefix + key, str(value)))
    return rows


def _leaderboard(own: list[FrozenTrial], metric: str) -> str:
    best = sorted(charts.complete(own), key=lambda t: -(t.value or 0.0))[:TOP]
    rows = []
    for trial in best:
        config = trial.user_attrs.get("config")
        what = TrialConfig.from_dict(config, f"trial {trial.number}").summary() if config else str(trial.params)
        name = trial.user_attrs.get("baseline")
        cells = (
            trial.number,
            f"{trial.value:.4f}",
            trial.user_attrs.get("epochs", ""),
            trial.user_attrs.get("seconds", ""),
            f"baseline: {name}" if name else what,
        )
        rows.append("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("trial", metric, "epochs", "seconds", "configuration"))
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>" if rows else "<p>No trial is complete yet.</p>"


def _confirmation(result: Confirmation) -> str:
    rows = []
    for c in result.candidates:
        gap = f"{(c.gap.low + c.gap.high) / 2:+.4f} ± {c.gap.half:.4f}" if c.gap else ""
        cells = (
            c.number,
            f"{c.searched:.4f}",
            f"{c.mean:.4f} ± {c.interval.half:.4f}",
            f"{c.luck:+.4f}",
            gap,
            f"{c.promise.low:.4f} to {c.promise.high:.4f}" if c.promise else "",
            f"baseline: {c.baseline}" if c.baseline else c.config.summary(),
        )
        rows.append("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>")
    names = ("trial", "searched", "fresh seeds", "luck", "over the baseline", "promised test accuracy", "configuration")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"
