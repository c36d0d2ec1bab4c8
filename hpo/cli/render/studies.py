"""Tables of studies and trials."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hpo import service
from hpo.cli.render.text import lanes, pace, sparkline, workers_at

if TYPE_CHECKING:
    from hpo.service.studies import Leaderboard, StudySummary, StudyView, TrialDetails, TrialView

COLUMNS = ("epochs", "seconds", "weights", "configuration")
HISTORY_COLUMNS = 60
"""Blocks that a study's history is drawn with."""


def study_table(studies: "Sequence[StudyView]") -> Table:
    """Return the studies of a store, one a row."""
    table = Table(box=None, pad_edge=False)
    for column in ("study", "space", "finished", "pruned", "failed", "running", "best", "state"):
        table.add_column(column, justify="left" if column in ("study", "space", "state") else "right")
    for study in studies:
        counts, budget, states = study.counts, study.budget, service.progress.State
        of = f" of {budget.trials}" if budget else ""
        state = "over" if study.over else ("at work" if study.workers else "waits")
        best = "" if study.best_value is None else f"{study.best_value:.4f}"
        numbers = (f"{study.finished}{of}", *(counts[each] for each in (states.PRUNED, states.FAIL, states.RUNNING)))
        table.add_row(
            study.name, study.attributes.space_name or "", *map(str, numbers), best, state if budget else "not hpo's"
        )
    return table


def leaderboard_table(board: "Leaderboard") -> Table:
    """Return the best trials of a study, best first; below them the best baseline, and what lies outside the space.

    With two objectives the best are the Pareto front: each next one is worse, but costs less.
    """
    table = Table(box=None, pad_edge=False)
    timed = board.cost if board.cost != "parameters" else None  # weights have a column anyway
    for column in ("rank", "trial", board.metric.removeprefix("validation "), *([timed] if timed else []), *COLUMNS):
        left = column == "configuration"
        table.add_column(column, justify="left" if left else "right", no_wrap=not left)
    if board.front_size is not None:
        table.caption = f"Pareto front, {len(board.best)} of {board.front_size}: each costs less"
        table.caption_justify = "left"
    for rank, trial in enumerate(board.best, start=1):
        table.add_row(str(rank), *_cells(trial, timed=bool(timed)))
    if board.baseline is not None and board.baseline.number not in [trial.number for trial in board.best]:
        table.add_section()
        table.add_row("-", *_cells(board.baseline, timed=bool(timed)))
    if board.outside:
        table.add_section()
        for trial in board.outside:
            table.add_row("out", *_cells(trial, timed=bool(timed)))
    return table


def _cells(trial: "TrialView", *, timed: bool) -> list[str | Text]:
    attributes = trial.attributes
    seconds, weights, baseline = attributes.seconds, attributes.parameters, attributes.baseline
    ended = " (pruned)" if trial.state == service.progress.State.PRUNED else ""
    return [
        str(trial.number),
        "" if trial.value is None else f"{trial.value:.4f}",
        *(["" if trial.cost is None else f"{trial.cost:.3g}"] if timed else []),
        str(len(trial.curve) if attributes.epochs is None else attributes.epochs),
        "" if seconds is None else f"{seconds:.1f}",
        "" if weights is None else f"{weights:,}",
        Text.assemble(("baseline:", "bold"), f" {baseline}{ended}")
        if baseline
        else service.studies.configuration(trial),
    ]


def print_summary(console: Console, summary: "StudySummary") -> None:
    """Print a study: progress, faults, the best trials."""
    view, counts, states = summary.view, summary.view.counts, service.progress.State
    of = f" of {view.budget.trials}" if view.budget else ""
    title = (view.attributes.space or {}).get("title") or "a study"
    console.print(Text.assemble((view.name, "bold"), f": {title}"))
    console.print(
        f"{view.finished}{of} trials finished, {counts[states.PRUNED]} of them pruned; "
        f"{counts[states.FAIL]} failed, {counts[states.RUNNING]} running, {counts[states.WAITING]} waiting"
    )
    if pace(view):
        console.print(", ".join(part for part in (pace(view), lanes(view)) if part))
    if view.revived:
        console.print(f"{view.revived} of the trials are second chances: pruned ones, trained on")
    if view.workers:
        console.print(workers_at(view), soft_wrap=True)
    if summary.device_hours:
        console.print(f"{summary.device_hours:,.2f} device-hours of training")
    if view.infeasible:
        console.print(f"{view.infeasible} draws broke the constraints: not trained, not counted")
    if view.drawn_at_random:
        console.print(f"{view.drawn_at_random} trials were drawn at random, as the sampler's model failed")
    if view.graph_failures:
        console.print(f"{view.graph_failures} trials were trained without a CUDA graph, which failed: hpo trials show")
    if view.outside:
        console.print(f"{view.outside} of the finished trials lie outside the space that was set since (rank out)")
    if summary.failures:
        faults = ", ".join(f"{number} {kind}" for kind, number in sorted(summary.failures.items()))
        console.print(f"faults: {faults}")
    if view.over is not None:
        console.print(f"over: {view.over.reason}")
    history = summary.best_so_far
    if history:
        step = max(1, -(-len(history) // HISTORY_COLUMNS))
        drawn = sparkline(history[::step] + history[-1:])
        console.print(Text.assemble(f"best so far: {history[0]:.4f} ", (drawn, "cyan"), f" {history[-1]:.4f}"))
    console.print(leaderboard_table(summary.leaderboard))


def print_trial(console: Console, study: str, details: "TrialDetails") -> None:
    """Print a trial: its configuration, its curve and how it ended."""
    trial = details.trial
    value = "" if trial.value is None else f" {trial.value:.4f}"
    state = "infeasible" if trial.attributes.infeasible is not None else trial.state.lower()
    console.print(f"trial {trial.number} of {study}: {state}{value}")
    console.print(service.studies.configuration(trial))
    if trial.attributes.revives is not None:
        console.print(f"the second chance of trial {trial.attributes.revives}, which was pruned")
    if trial.outside is not None:
        console.print(f"outside the study's space, hidden from the sampler: {trial.outside}")
    if trial.curve:
        console.print(f"{details.metric} by epoch: {sparkline(list(trial.curve.values()))}")
    for key, entry in trial.attributes.user.items():
        if key not in ("config", "curves", "excused"):
            text = f"{entry['kind']}: {entry['message']}" if key == "failure" else entry
            console.print(f"  {key}: {text}")
