"""What commands print of studies and trials."""

from typing import Any

from rich.table import Table
from sqlalchemy.engine import URL, Connection

from hpo.config import LABELS
from hpo.store import queries
from hpo.store.database.study_rows import load_attributes
from hpo.store.database.url import DEFAULT, parse, shown
from hpo.store.record import State, TrialAttributes
from hpo.store.views import StudyView, TrialView

COLUMNS = ("epochs", "seconds", "weights", "configuration")
OUTSIDE_ROWS = 3
"""So many of the best trials that the study's space, changed since, cannot draw."""


def leaderboard(connection: Connection, study_id: int, top: int) -> Table:
    """Return the best trials of a study, best first; below them the best baseline, and what lies outside the space.

    With two objectives the best are the Pareto front: each next one is worse, but costs less.
    """
    table = Table(box=None, pad_edge=False)
    study = load_attributes(connection, study_id)
    cost = study.cost
    timed = study.cost_label if cost != "parameters" else None  # weights have a column anyway
    metric = LABELS[study.metric] if study.metric is not None else study.metric_label
    for column in ("rank", "trial", metric, *([timed] if timed else []), *COLUMNS):
        table.add_column(
            column, justify="left" if column == "configuration" else "right", no_wrap=column != "configuration"
        )
    if cost is None:
        best = queries.best_trials(connection, study_id, top)
    else:
        front = queries.front(connection, study_id)
        best = front[:top]
        table.caption, table.caption_justify = f"Pareto front, {len(best)} of {len(front)}: each costs less", "left"
    for rank, trial in enumerate(best, start=1):
        table.add_row(str(rank), *_cells(trial, bool(timed)))
    baseline = queries.baseline_trial(connection, study_id)
    if baseline is not None and baseline.number not in [trial.number for trial in best]:
        table.add_section()
        table.add_row("-", *_cells(baseline, bool(timed)))
    outside = queries.best_trials(connection, study_id, min(top, OUTSIDE_ROWS), outside=True)
    if outside:
        table.add_section()
        for trial in outside:
            table.add_row("out", *_cells(trial, bool(timed)))
    return table


def _cells(trial: TrialView, timed: bool) -> list[str]:
    attributes = trial.attributes
    seconds, weights, baseline = attributes.seconds, attributes.parameters, attributes.baseline
    ended = " (pruned)" if trial.state == State.PRUNED else ""
    return [
        str(trial.number),
        "" if trial.value is None else f"{trial.value:.4f}",
        *(["" if trial.cost is None else f"{trial.cost:.3g}"] if timed else []),
        str(len(trial.curve) if attributes.epochs is None else attributes.epochs),
        "" if seconds is None else f"{seconds:.1f}",
        "" if weights is None else f"{weights:,}",
        (f"[bold]baseline:[/bold] {baseline}{ended}" if baseline else configuration(trial)),
    ]


def configuration(trial: TrialView) -> str:
    """Return a trial's config in one line."""
    if trial.attributes.config is None:
        return ", ".join(f"{name}={value}" for name, value in trial.params.items())
    return trial.config.summary()


def trial_json(trial: TrialView) -> dict[str, Any]:
    """Return a trial as JSON types."""
    return {
        "number": trial.number,
        "state": trial.state,
        "value": trial.value,
        "cost": trial.cost,
        "params": trial.params,
        "curve": {str(epoch): value for epoch, value in trial.curve.items()},
        "outside": trial.outside,
        **{key: value for key, value in trial.attributes.user.items() if key != TrialAttributes.curves.key},
    }


def study_json(study: StudyView) -> dict[str, Any]:
    """Return a study as JSON types."""
    return {
        "name": study.name,
        "space": study.attributes.space_name,
        "data": (study.attributes.space or {}).get("data"),
        "data_fingerprint": study.attributes.data_fingerprint,
        "counts": study.counts,
        "metric": study.metric_label,
        "cost": study.cost_label,
        "infeasible": study.infeasible,
        "outside": study.outside,
        "best_value": study.best_value,
        "budget": study.budget.model_dump() if study.budget else None,
        "active_seconds": study.active_seconds,
        "over": study.over.reason if study.over else None,
        "trials_per_hour": study.trials_per_hour,
        "lanes": study.lanes,
        "occupancy": study.occupancy,
        "workers": list(study.workers),
    }


def pace(study: StudyView) -> str:
    """Return how fast a study gets on; empty where nothing is known."""
    return f"{study.trials_per_hour:,.0f} trials per hour" if study.trials_per_hour else ""


def lanes(study: StudyView) -> str:
    """Return how a study's workers are filled; empty where trials are trained one by one."""
    parts = []
    if study.lanes:
        parts.append(f"{study.lanes} lane{'' if study.lanes == 1 else 's'}")
    if study.occupancy is not None:
        parts.append(f"{100 * study.occupancy:.0f} % of the slots in use")
    return ", ".join(parts)


def storage_option(url: URL) -> str:
    """Return the --storage option that a command needs to find this store again; empty for the default."""
    return "" if url == parse(DEFAULT) else f" --storage '{shown(url)}'"


def _python_option(study: StudyView) -> str:
    """Return the --python option that a command needs to run a study's code of the user's own."""
    space = study.attributes.space or {}
    reference = space.get("python") or (space.get("model") or {}).get("python")
    return f" --python {reference.rpartition(':')[0]}" if reference else ""


def next_commands(url: URL, study: StudyView) -> str:
    """Return what to do after a run: how far it came, how to go further, and three commands to go on with."""
    storage, python = storage_option(url), _python_option(study)
    option = storage + python
    if study.over is not None:
        state, more = f"is over: {study.over.reason}", f" {study.over.extension}"
    else:
        state, more = f"is stopped: {study.finished} trials done", ""
    return (
        f"\nstudy {study.name} {state}. For more: hpo run --study {study.name}{more.rstrip()}{option}\n"
        f"To keep the winner:\n"
        f"  hpo confirm {study.name}{option}\n"
        f"  hpo export {study.name} -o best.toml{storage}\n"
        f"  hpo train best.toml -o best{python}"
    )
