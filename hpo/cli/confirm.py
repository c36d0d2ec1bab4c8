"""`hpo confirm`: is the winner better, or was it lucky?"""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.cli.options import (
    AsJson,
    Device,
    EngineOption,
    OwnCode,
    Storage,
    StudyName,
    at_least_one,
    engine_name,
    out,
    print_json,
    talk,
)
from hpo.errors import StudyError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from hpo.results.confirmation import Confirmation


def confirm(
    study: StudyName,
    top: Annotated[int, typer.Option(metavar="K", help="How many of the best configurations.")] = 5,
    seeds: Annotated[int, typer.Option(metavar="N", help="Fresh seeds for each of them; at least 2.")] = 5,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes. [default: one per CPU core, or one per GPU]")
    ] = None,
    device: Device = "auto",
    engine: EngineOption = None,
    python: OwnCode = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Train the best configurations and the baseline again on fresh seeds, and say whether there is a winner."""
    at_least_one("--top", top)
    if seeds < 2:
        raise UsageError(f"--seeds: must be at least 2, for one score says nothing of their spread, got {seeds}.")
    at_least_one("--workers", workers)
    named = engine_name(engine)

    from hpo import data
    from hpo.cli.data import fetch_with_progress
    from hpo.cli.tables import storage_option
    from hpo.cli.workers import run_workers
    from hpo.results import confirmation
    from hpo.runner.devices import devices_for
    from hpo.store import studies
    from hpo.store.database.connect import open_store
    from hpo.store.database.url import configured

    devices = devices_for(device, workers)
    store = open_store(configured(storage))
    found = studies.load_study(store, study)
    found.space.check_code()
    fetch_with_progress(found.space.data)
    studies.check_data(found, data.fingerprint(data.info(found.space.data), found.space.split))
    confirming = confirmation.prepare(store, found, top, seeds)
    failure, stopped = run_workers(store, confirming, devices, named)
    result = confirmation.evaluate(store, found)
    if result is not None and as_json:
        print_json(confirmation_json(result))
    elif result is not None:
        out().print(confirmation_table(result))
        out().print(f"\n[bold]verdict:[/bold] trial {result.winner.number} is {result.verdict}.")
    if failure:
        raise StudyError(f'Study "{confirming.name}" stopped: {failure}')
    if stopped:
        sys.exit(130)
    if result is None:
        raise StudyError(
            f'Study "{confirming.name}" has no two trainings of one configuration: see why with '
            f"`hpo studies show {confirming.name}`."
        )
    option = storage_option(store.url)
    talk().print(f"\nTo keep it:\n  hpo export {study} -o best.toml{option}\n  hpo train best.toml -o best")


def confirmation_table(result: "Confirmation") -> "Table":
    """Return what the fresh seeds have shown, the winner first."""
    from rich.table import Table

    from hpo.config import metric_label
    from hpo.results.intervals import LEVEL

    table = Table(box=None, pad_edge=False, caption_justify="left")
    for column in ("trial", "searched", "fresh seeds", "luck", "over the baseline", "configuration"):
        left = column == "configuration"
        table.add_column(column, justify="left" if left else "right", no_wrap=not left)
    for candidate in result.candidates:
        name = f"[bold]baseline:[/bold] {candidate.baseline}" if candidate.baseline else candidate.config.summary()
        gap = candidate.gap
        table.add_row(
            str(candidate.number),
            f"{candidate.searched:.4f}",
            f"{candidate.mean:.4f} ± {candidate.interval.half:.4f}",
            f"{candidate.luck:+.4f}",
            "" if gap is None else f"{(gap.low + gap.high) / 2:+.4f} ± {gap.half:.4f}",
            name,
        )
    missing = f"; {result.missing} trainings are missing" if result.missing else ""
    counts = sorted({len(c.values) for c in result.candidates})
    seeds = " to ".join(str(count) for count in {counts[0], counts[-1]})
    measured, level = metric_label(result.winner.config.metric), f"{100 * LEVEL:.0f} %"
    table.caption = f"{measured}, mean of {seeds} seeds, {level} intervals{missing}"
    return table


def confirmation_json(result: "Confirmation") -> dict[str, Any]:
    """Return a confirmation as JSON types."""

    def pair(interval: Any) -> list[float] | None:
        return None if interval is None else [interval.low, interval.high]

    return {
        "study": result.study,
        "winner": result.winner.number,
        "verdict": result.verdict,
        "better_than_baseline": result.certain,
        "missing": result.missing,
        "candidates": [
            {
                "trial": c.number,
                "baseline": c.baseline,
                "searched": c.searched,
                "values": list(c.values),
                "mean": c.mean,
                "interval": pair(c.interval),
                "luck": c.luck,
                "gap": pair(c.gap),
                "promise": pair(c.promise),
                "config": c.config.to_dict(),
            }
            for c in result.candidates
        ],
    }
