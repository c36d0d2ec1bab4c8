"""Report: a study as one web page that needs no network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import optuna
import plotly.graph_objects as go

from hpo import files
from hpo.config import metric_label
from hpo.constraints import COST_NAMES
from hpo.errors import StudyError
from hpo.results import charts, report, report_pair
from hpo.service.next_steps import next_commands
from hpo.store import queries
from hpo.store.database import trial_rows
from hpo.store.database.connect import Store
from hpo.store.studies import StudyRecord

FigureName = Literal["history", "importances", "parallel", "curves", "pareto"]


@dataclass(frozen=True)
class ReportFile:
    """A report that was written."""

    path: Path
    size: int
    """Characters of the page."""


def study_figure(store: Store, study: StudyRecord, name: FigureName) -> go.Figure:
    """Return a figure of a study. Raises: StudyError if its trials are too few, or lack a second objective."""
    with store.read() as connection:
        everything = trial_rows.load_trials(connection, study.study_id)
        front = queries.front(connection, study.study_id)
        baseline = queries.baseline_trial(connection, study.study_id)
    trials, metric = charts.searched_trials(everything), metric_label(study.metric)
    match name:
        case "history":
            return charts.history_figure(trials, metric, baseline=None if baseline is None else baseline.value)
        case "importances":
            return charts.importances_figure(trials)
        case "parallel":
            return charts.parallel_figure(trials, metric)
        case "curves":
            return charts.curves_figure(trials, metric)
        case "pareto":
            if study.recipe.cost is None:
                raise StudyError(f'Study "{study.name}": a Pareto front needs two objectives, got one.')
            return charts.pareto_figure(everything, front, metric=metric, cost=COST_NAMES[study.recipe.cost])


def report_html(store: Store, study: StudyRecord) -> str:
    """Return a study's report as HTML, below 5 MB."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # importances are computed on a study in memory
    with store.read() as connection:
        view = queries.study(connection, study.study_id)
    return report.report(store, study, next_commands(store, view))


def write_report(
    store: Store, study: StudyRecord, path: str | Path = "report.html", *, beside: StudyRecord | None = None
) -> ReportFile:
    """Write a study's report to a file, whole or not at all; or, with `beside`, two studies side by side.

    Raises: StudyError for one study named twice, HpoError if the file cannot be written.
    """
    content = report_html(store, study) if beside is None else report_pair.report_pair(store, study, beside)
    files.write_output(Path(path), content)
    return ReportFile(Path(path), len(content))
