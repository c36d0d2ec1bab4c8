"""A study as one page that needs no network: what was searched, the results, what to do next."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from hpo import documents
from hpo.config import metric_label
from hpo.results import audit, charts, confirmation, report_charts
from hpo.results.audit import Audit
from hpo.results.candidates import Confirmation
from hpo.results.pruner_comparison import PrunerComparison, compare_pruners
from hpo.results.report_page import Section, Tile, escaped, page, table
from hpo.runner.dashboard_note import data_name
from hpo.store import queries
from hpo.store.database import trial_rows
from hpo.store.database.connect import Store
from hpo.store.database.url import shown
from hpo.store.record import State, TrialAttributes
from hpo.store.studies import StudyRecord
from hpo.store.views import StudyView, TrialView

COMPARED = 100
"""Most trials on which pruners are compared: a page is to be made in a second or two."""
TOP = 15
"""Rows of the leaderboard."""


@dataclass(frozen=True)
class Material:
    """What a report is made of, as read from the store."""

    study: StudyRecord
    state: StudyView
    all_trials: list[FrozenTrial]
    trials: list[FrozenTrial]
    """The trials that count, with the value of the metric alone."""
    front: list[TrialView]
    """The Pareto front; empty with one objective."""
    failures: dict[str, int]
    """Failed trials by kind."""
    baseline: float | None
    confirmation: Confirmation | None
    audit: Audit | None
    pruners: PrunerComparison | None
    """None where nothing was pruned."""

    @property
    def metric(self) -> str:
        """The label of the metric."""
        return metric_label(self.study.metric)


def report(store: Store, study: StudyRecord, commands: str) -> str:
    """Return a study's report as HTML: below 5 MB, its figures drawn when they are scrolled into view.

    `commands` are what can be run next, one a line.
    """
    material = read(store, study)
    sections = [*_sections(material), Section("To continue", html=f"<pre>{escaped(commands)}</pre>")]
    footer = f"{shown(store.url)} · data {study.fingerprint[:16]}"
    return page(study.name, study.space.title or study.space_name, _tiles(material), sections, footer)


def read(store: Store, study: StudyRecord) -> Material:
    """Read what a report is made of."""
    with store.read() as connection:
        state = queries.study(connection, study.study_id)
        all_trials = trial_rows.load_trials(connection, study.study_id)
        failures = queries.failure_kinds(connection, study.study_id)
        baseline = queries.baseline_trial(connection, study.study_id)
        front = list(queries.front(connection, study.study_id))
    return Material(
        study=study,
        state=state,
        all_trials=all_trials,
        trials=charts.searched_trials(all_trials),
        front=front,
        failures=failures,
        baseline=baseline.value if baseline else None,
        confirmation=confirmation.evaluate(store, study),
        audit=audit.evaluate(store, study),
        pruners=compare_pruners(store, study, COMPARED) if state.counts[State.PRUNED] else None,
    )


def _tiles(material: Material) -> list[Tile]:
    seconds = sum(TrialAttributes.of(t).seconds or 0.0 for t in material.trials)
    state, baseline, result = material.state, material.baseline, material.confirmation
    outside = f", {state.outside} outside the space that was set since" if state.outside else ""
    revived = f", {state.revived} second chances of pruned ones" if state.revived else ""
    pruned, failed = state.counts[State.PRUNED], state.counts[State.FAIL]
    tiles = [
        (f"{state.finished}", f"trials finished, {pruned} of them pruned{revived}{outside}, {failed} failed"),
        ("-" if state.best_value is None else f"{state.best_value:.4f}", f"best {state.metric_label} in the search"),
        ("-" if baseline is None else f"{baseline:.4f}", "the baseline's"),
        (f"{seconds / 60:.1f} min", "of training, all workers together"),
    ]
    if result is not None:
        half = result.winner.interval.half
        tiles.append((f"{result.winner.mean:.4f}", f"the winner's mean when trained again, ± {half:.4f}"))
    return tiles


def _sections(material: Material) -> Iterator[Section]:
    trials, metric = material.trials, material.metric
    yield Section("What was searched", html=_searched(material.study))
    if material.front:
        label = {"metric": material.state.metric_label, "cost": material.state.cost_label or "cost"}
        figure = charts.pareto_figure(material.all_trials, material.front, **label)
        text = "Each trial of the front is the best of those that cost no more than it."
        yield Section("Pareto front", text, name="front", figure=figure)
    yield _confirmation_section(material)
    if material.audit is not None:
        yield Section("What pruning may have missed", material.audit.summary, _audited(material.audit))
    yield Section("The best trials", html=_leaderboard(trials, metric))
    history = charts.history_figure(trials, metric, baseline=material.baseline)
    yield Section("Best so far", "Over finished trials, and over time.", name="best", figure=history)
    curves = charts.curves_figure(trials, metric)
    yield Section("Learning curves", "Crosses mark where a trial was pruned.", name="curves", figure=curves)
    for title, text, name, figure in (
        (
            "Importances",
            "PED-ANOVA over the complete trials, of the parameters that all of them have.",
            "importances",
            charts.optional(charts.importances_figure, trials),
        ),
        (
            "Each choice",
            f"Complete trials: {metric} against each parameter.",
            "slices",
            charts.optional(report_charts.slices_figure, trials),
        ),
        (
            "Parallel coordinates",
            "A line for each complete trial, darker where its value is higher.",
            "parallel",
            charts.optional(lambda shown: charts.parallel_figure(shown, metric), trials),
        ),
        (
            "Overfitting",
            "Training minus validation accuracy against regularization.",
            "gap",
            report_charts.overfitting_figure(trials, metric),
        ),
    ):
        if figure is not None:
            yield Section(title, text, name=name, figure=figure)
    if material.pruners is not None:
        yield Section("What other pruners would have done", material.pruners.summary, _pruned_by(material.pruners))
    kinds = sorted(material.failures.items())
    failures = table(("fault", "trials"), [*kinds]) if kinds else "<p>No trial failed.</p>"
    yield Section("Time and failures", html=failures, name="time", figure=report_charts.time_figure(trials))


def _confirmation_section(material: Material) -> Section:
    result = material.confirmation
    if result is None:
        text = f"Not done: the best may be luck. To know: hpo confirm {material.study.name}"
        return Section("Confirmation", text)
    text = f"Trial {result.winner.number} is {result.verdict}. Diamonds are the values in the search: the best of many."
    figure = report_charts.confirmation_figure(result)
    return Section("Confirmation", text, _candidates(result), name="confirmed", figure=figure)


def _searched(study: StudyRecord) -> str:
    recipe = study.recipe
    lines = [f"space {study.space_name}, data {data_name(study)}"]
    lines.append(f"sampler {recipe.sampler.name}, pruner {recipe.pruner.name}, seed {recipe.seed}")
    content = documents.dump(study.space)
    for key in ("title", "data", "baselines"):
        content.pop(key, None)
    rows = "".join(f"<tr><td>{escaped(name)}</td><td>{escaped(rule)}</td></tr>" for name, rule in _flat(content))
    summary = "".join(f"<p>{escaped(line)}</p>" for line in lines)
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


def _leaderboard(trials: list[FrozenTrial], metric: str) -> str:
    best = sorted(charts.complete(trials), key=lambda t: -(t.value or 0.0))[:TOP]
    rows: list[tuple[object, ...]] = []
    for trial in best:
        attributes = TrialAttributes.of(trial)
        known = attributes.config is not None
        label = attributes.training_config(trial.number).summary() if known else str(trial.params)
        name = attributes.baseline
        label += "" if attributes.revives is None else f" (second chance of trial {attributes.revives})"
        measured = ["" if value is None else value for value in (attributes.epochs, attributes.seconds)]
        rows.append((trial.number, f"{trial.value:.4f}", *measured, f"baseline: {name}" if name else label))
    head = ("trial", metric, "epochs", "seconds", "configuration")
    return table(head, rows) if rows else "<p>No trial is complete yet.</p>"


def _audited(result: Audit) -> str:
    rows: list[tuple[object, ...]] = [
        (t.number, f"epoch {t.pruned_at}", f"{t.value_then:.4f}", f"{t.value:.4f}", t.config.summary())
        for t in result.audited
    ]
    return table(("trial", "pruned at", "value then", "at the end", "configuration"), rows)


def _pruned_by(comparison: PrunerComparison) -> str:
    rows: list[tuple[object, ...]] = [
        (
            each.name + (" (this study's)" if each.is_own else ""),
            f"{each.survivors} of {comparison.trials}",
            f"{each.epochs:,}",
            f"{100 * comparison.saved(each):.0f} %",
            "survives" if each.winner_survives else "is pruned",
        )
        for each in comparison.outcomes
    ]
    return table(("pruner", "trained to the end", "epochs", "saved", "the best"), rows)


def _candidates(result: Confirmation) -> str:
    entries: list[tuple[object, ...]] = [
        (
            c.number,
            f"{c.searched:.4f}",
            f"{c.mean:.4f} ± {c.interval.half:.4f}",
            f"{c.luck:+.4f}",
            f"{(c.gap.low + c.gap.high) / 2:+.4f} ± {c.gap.half:.4f}" if c.gap else "",
            f"{c.promise.low:.4f} to {c.promise.high:.4f}" if c.promise else "",
            f"baseline: {c.baseline}" if c.baseline else c.config.summary(),
        )
        for c in result.candidates
    ]
    promised = "promised on test rows" if result.test_like_training else "promised on rows like those of training"
    head = ("trial", "searched", "trained again", "luck", "over the baseline", promised, "configuration")
    return table(head, entries)
