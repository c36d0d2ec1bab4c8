"""Two studies side by side, as one page: what was searched, what was found, how fast, and what differs."""

import math
from collections.abc import Iterator
from typing import Any

import plotly.graph_objects as go
from optuna.trial import TrialState
from plotly.subplots import make_subplots

from hpo import documents
from hpo.config import TrialConfig, metric_label
from hpo.errors import StudyError
from hpo.results import charts
from hpo.results.report import Material, read
from hpo.results.report_page import Section, Tile, page, table
from hpo.runner.dashboard_note import data_name
from hpo.store.database.connect import Store
from hpo.store.database.url import shown
from hpo.store.record import State, TrialAttributes
from hpo.store.studies import StudyRecord

COLORS = ("#2563eb", "#d97706")


def report_pair(store: Store, first: StudyRecord, second: StudyRecord) -> str:
    """Return two studies side by side as HTML, below 5 MB. Raises: StudyError for one study named twice."""
    if first.study_id == second.study_id:
        raise StudyError(f'Study "{first.name}": two studies are compared, got it twice. Name another one.')
    pair = (read(store, first), read(store, second))
    names = (first.name, second.name)
    tiles: list[Tile] = [(_value(each.state.best_value), f"best of {each.study.name} in the search") for each in pair]
    for each in pair:
        if each.confirmation is not None:
            mean = each.confirmation.winner
            tiles.append((f"{mean.mean:.4f}", f"{each.study.name}'s winner trained again, ± {mean.interval.half:.4f}"))
    title = " and ".join(names)
    return page(title, "Two studies side by side", tiles, list(_sections(pair, names)), shown(store.url))


def _sections(pair: tuple[Material, Material], names: tuple[str, str]) -> Iterator[Section]:
    yield Section("What was found", _comparable(pair), table(("", *names), _results(pair)))
    figure = _history(pair)
    yield Section("Best so far", "Over finished trials, and over time.", name="best", figure=figure)
    searched = [_flat(_searched(each)) for each in pair]
    yield Section("What was searched", _only_differences(*searched), _differences(names, *searched))
    winners = [_winner(each) for each in pair]
    configs = [{} if each is None else _flat(each.to_dict()) for each in winners]
    text = "The winner of the confirmation, or without one the best trial of the search. " + _only_differences(*configs)
    yield Section("The winners", text, _differences(names, *configs))


def _comparable(pair: tuple[Material, Material]) -> str:
    """Say whether the values of two studies mean the same."""
    first, second = pair[0].study, pair[1].study
    if first.metric != second.metric:
        return f"The values do not compare: {metric_label(first.metric)} and {metric_label(second.metric)}."
    if first.fingerprint != second.fingerprint:
        return "The values do not compare: the data or their split differ."
    if (first.effective_space.split, first.recipe.fidelity) != (second.effective_space.split, second.recipe.fidelity):
        return "The values in the search do not compare: they are of other rows or image sizes."
    return "Both validate on the same rows."


def _results(pair: tuple[Material, Material]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    columns = [_facts(each) for each in pair]
    for name in columns[0]:
        rows.append((name, *(column[name] for column in columns)))
    return rows


def _facts(material: Material) -> dict[str, str]:
    state, result, audited = material.state, material.confirmation, material.audit
    counts = state.counts
    seconds = [TrialAttributes.of(t).seconds or 0.0 for t in material.trials]
    winner = result.winner if result is not None else None
    promise = winner.promise if winner is not None else None
    ended = [t for t in material.trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    return {
        "metric": material.metric,
        "trials finished": f"{state.finished}, {counts[State.PRUNED]} of them pruned, {counts[State.FAIL]} failed",
        "best in the search": _value(state.best_value),
        "baseline": _value(material.baseline),
        "the winner, trained again": "not confirmed"
        if winner is None
        else f"{winner.mean:.4f} ± {winner.interval.half:.4f}",
        "verdict": "" if result is None else result.verdict,
        "promised": "" if promise is None else f"{promise.low:.4f} to {promise.high:.4f}",
        "missed by pruning": "not audited" if audited is None else audited.summary,
        "epochs trained": f"{sum(TrialAttributes.of(t).epochs or 0 for t in ended):,}",
        "minutes of training": f"{sum(seconds) / 60:.1f}",
    }


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _history(pair: tuple[Material, Material]) -> go.Figure:
    """Return the best value so far of both, over finished trials and over minutes."""
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.05)
    for material, color in zip(pair, COLORS, strict=True):
        values, minutes = charts.history(material.trials)
        for column, xs in ((1, list(range(1, len(values) + 1))), (2, minutes)):
            line = {"color": color, "shape": "hv", "width": 2}
            name = material.study.name
            trace = go.Scatter(x=xs, y=values, mode="lines", line=line, name=name, showlegend=column == 1)
            figure.add_trace(trace, row=1, col=column)
    figure.update_xaxes(title_text="finished trials", row=1, col=1)
    figure.update_xaxes(title_text="minutes", row=1, col=2)
    figure.update_yaxes(title_text=pair[0].metric, row=1, col=1)
    return charts.styled(figure, 340)


def _searched(material: Material) -> dict[str, Any]:
    study, budget = material.study, material.state.budget
    space = documents.dump(study.space)
    for key in ("title", "data", "baselines"):
        space.pop(key, None)
    recipe = study.recipe.identity()
    limits = {} if budget is None else budget.model_dump(exclude_none=True)
    return {"data": data_name(study), "space": study.space_name, "recipe": recipe, "budget": limits, **space}


def _winner(material: Material) -> TrialConfig | None:
    if material.confirmation is not None:
        return material.confirmation.winner.config
    best = max(charts.complete(material.trials), key=lambda t: t.value or -math.inf, default=None)
    if best is None or TrialAttributes.of(best).config is None:
        return None
    return TrialAttributes.of(best).training_config(best.number)


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the fields of a document by their dotted names, as text."""
    rows: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, dict) and value and not {"low", "choices"} & value.keys():
            rows |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, dict):
            rows[prefix + key] = ", ".join(f"{name} {part}" for name, part in value.items())
        else:
            rows[prefix + key] = _short(value)
    return rows


def _short(value: object) -> str:
    """Return a value as text, floats with four digits."""
    match value:
        case None:
            return "-"
        case float():
            return f"{value:.4g}"
        case list() | tuple():
            return "-".join(map(_short, value)) or "none"
    return str(value)


def _only_differences(first: dict[str, str], second: dict[str, str]) -> str:
    same = sum(first.get(name) == second.get(name) for name in first.keys() | second.keys())
    return f"Only what differs is shown; {same} fields are the same."


def _differences(names: tuple[str, str], first: dict[str, str], second: dict[str, str]) -> str:
    fields = [*first, *(name for name in second if name not in first)]
    rows = [(n, first.get(n, "-"), second.get(n, "-")) for n in fields if first.get(n, "-") != second.get(n, "-")]
    return table(("", *names), rows) if rows else "<p>Nothing differs.</p>"
