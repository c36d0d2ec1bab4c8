"""`hpo confirm`: is the winner better, or was it lucky?"""

from typing import Annotated

import typer
from rich.text import Text

from hpo import service
from hpo.cli.console import err, out, print_json
from hpo.cli.options import (
    AsJson,
    Device,
    EngineOption,
    OwnCode,
    Storage,
    StudyName,
    Workers,
    as_option,
    at_least_one,
)
from hpo.cli.render.as_json import confirmation_json
from hpo.cli.render.confirmation import confirmation_table, promise_text
from hpo.cli.render.live_view import LiveView
from hpo.cli.render.progress import download_bar


def confirm(
    study: StudyName,
    *,
    top: Annotated[int, typer.Option(metavar="K", help="Number of best configurations.")] = 5,
    seeds: Annotated[int, typer.Option(metavar="N", help="Trainings of each, each on a fresh seed; at least 2.")] = 5,
    same_cut: Annotated[
        bool, typer.Option("--same-cut", help="Validate each time on the study's own rows, not on others.")
    ] = False,
    workers: Workers = None,
    device: Device = "auto",
    engine: EngineOption = None,
    python: OwnCode = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Train the best configurations and the baseline again on fresh seeds and rows, and report whether
    there is a winner.

    The validation rows are another random cut of the training split each time, the same for all configurations.
    """
    at_least_one("--workers", workers)
    with as_option():
        service.confirm.check_counts(top, seeds)
        service.search.check_engine(engine)
    devices = service.search.devices_for(device, workers)
    opened = service.create.open_existing(study, storage)
    with download_bar(err()) as on_download:
        confirming = service.confirm.prepare_confirmation(
            opened.store, opened.study, top=top, seeds=seeds, same_cut=same_cut, on_download=on_download
        )
    view = LiveView(opened.store, confirming, err())
    with service.search.stop_on_signals() as stop:
        confirmed = service.confirm.run_confirmation(
            opened.store, opened.study, devices=devices, engine=engine, observer=view, stop=stop
        )
    result = confirmed.result
    if result is not None and as_json:
        print_json(confirmation_json(result))
    elif result is not None:
        out().print(confirmation_table(result))
        out().print(Text.assemble(("\nverdict:", "bold"), f" trial {result.winner.number} is {result.verdict}."))
        if promise := promise_text(result):
            out().print(promise)
    confirmed.raise_for_failure()
    if confirmed.outcome.stopped:
        raise typer.Exit(128 + stop.signal)
    option = service.next_steps.storage_option(opened.store)
    err().print(f"\nTo keep it:\n  hpo export {study} -o best.toml{option}\n  hpo train best.toml -o best")
