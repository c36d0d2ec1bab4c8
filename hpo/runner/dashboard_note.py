"""The note that optuna-dashboard shows of a study, kept current by its workers."""

import logging
import time
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from hpo.config import OwnData, format_difference
from hpo.errors import StoreError
from hpo.store import queries
from hpo.store.dashboard_notes import write_note
from hpo.store.database import schema
from hpo.store.database.connect import Store
from hpo.store.record import State
from hpo.store.studies import StudyRecord

NOTE_SECONDS = 15.0
SHARE = 0.01
"""Greatest share of its time that a worker spends on the note: importances of many trials take long."""
FRONT_ROWS = 10
_log = logging.getLogger(__name__)


class DashboardNoteWriter:
    """Writes a study's note now and then; of several workers only the first does, until the study's end."""

    def __init__(
        self, store: Store, study: StudyRecord, worker_id: str, importances: Callable[[], dict[str, float]]
    ) -> None:
        self.store, self.study, self.worker_id, self.importances = store, study, worker_id, importances
        self._due = time.monotonic() + NOTE_SECONDS

    def write_if_due(self, *, at_once: bool = False) -> None:
        """Write the note if it is due; if the store is away, try again later."""
        started = time.monotonic()
        if not at_once and started < self._due:
            return
        try:
            with self.store.read() as connection:
                if not at_once and not self._is_first(connection):
                    self._due = started + NOTE_SECONDS
                    return
                text = note(connection, self.study, self.importances())
            write_note(self.store, self.study.study_id, text)
        except (SQLAlchemyError, StoreError) as error:
            _log.debug("the study's note was not written: %s", error)
        now = time.monotonic()
        self._due = now + max(NOTE_SECONDS, (now - started) / SHARE)

    def _is_first(self, connection: Connection) -> bool:
        workers = schema.hpo_workers.c
        first = sa.select(sa.func.min(workers.worker_id)).where(workers.study_id == self.study.study_id)
        return bool(connection.execute(first).scalar() == self.worker_id)


def data_name(study: StudyRecord) -> str:
    """Return the name of a study's data."""
    source = study.space.data
    return source.name if isinstance(source, OwnData) else str(source)


def note(connection: Connection, study: StudyRecord, importances: dict[str, float]) -> str:
    """Return a study's note as Markdown."""
    state = queries.study(connection, study.study_id)
    best = queries.best_trials(connection, study.study_id, 1)
    baseline = queries.baseline_trial(connection, study.study_id)
    counts = state.counts
    total = f" of {state.budget.trials}" if state.budget else ""
    lines = [
        f"## {study.space.title or study.space_name}",
        "",
        f"Space `{study.space_name}` on `{data_name(study)}` (data {study.fingerprint[:16]}), "
        f"sampler {study.recipe.sampler.name}, pruner {study.recipe.pruner.name}.",
        "",
        f"**{state.finished}{total} trials finished**, {counts[State.PRUNED]} of them pruned; "
        f"{counts[State.FAIL]} failed." + (f" Over: {state.over.reason}." if state.over else ""),
        "",
    ]
    if best:
        lines += [f"**Best: {best[0].value:.4f}**, trial {best[0].number}: {best[0].config.summary()}", ""]
    front = queries.front(connection, study.study_id)
    if len(front) > 1:
        lines += [f"| trial | {state.metric_label} | {state.cost_label} |", "|---|---|---|"]
        lines += [f"| {t.number} | {t.value:.4f} | {t.cost:,.6g} |" for t in front[:FRONT_ROWS]]
        lines.append("")
    if baseline is not None and baseline.value is not None:
        gain = ""
        if best and best[0].value is not None:
            gain = f" The best is {format_difference(state.metric, best[0].value - baseline.value)} from it."
        lines += [f"Baseline ({baseline.attributes.baseline}): {baseline.value:.4f}.{gain}", ""]
    if importances:
        lines += ["| parameter | importance |", "|---|---|"]
        lines += [f"| {name} | {value:.2f} |" for name, value in list(importances.items())[:8]]
        lines.append("")
    lines += [
        f"[The report](/reports/{study.name}), or as a file: `hpo report {study.name}`.",
        "",
        "To continue:",
        "",
        "```",
        f"hpo confirm {study.name}",
        f"hpo export {study.name} -o best.toml",
        "hpo train best.toml -o best",
        "```",
        "",
        "*Written by hpo; it replaces what you write here while workers run.*",
    ]
    return "\n".join(lines)
