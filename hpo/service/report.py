"""Report: a study as one web page that needs no network."""

from dataclasses import dataclass
from pathlib import Path

from hpo import files
from hpo.results import report
from hpo.service.next_steps import next_commands
from hpo.store import queries
from hpo.store.database.connect import Store
from hpo.store.studies import StudyRecord


@dataclass(frozen=True)
class ReportFile:
    """A report that was written."""

    path: Path
    size: int
    """Characters of the page."""


def report_html(store: Store, study: StudyRecord) -> str:
    """Return a study's report as HTML, below 5 MB."""
    with store.read() as connection:
        view = queries.study(connection, study.study_id)
    return report.report(store, study, next_commands(store, view))


def write_report(store: Store, study: StudyRecord, path: str | Path = "report.html") -> ReportFile:
    """Write a study's report to a file, whole or not at all. Raises: HpoError if it cannot be written."""
    content = report_html(store, study)
    files.write_output(Path(path), content)
    return ReportFile(Path(path), len(content))
