"""`hpo audit`: did pruning miss anything?"""

from typing import Annotated

import typer

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
from hpo.cli.render.as_json import audit_json
from hpo.cli.render.audit import audit_table
from hpo.cli.render.live_view import LiveView
from hpo.cli.render.progress import download_bar


def audit(
    study: StudyName,
    *,
    trials: Annotated[int, typer.Option(metavar="N", help="Pruned trials to train to the end.")] = 6,
    workers: Workers = None,
    device: Device = "auto",
    engine: EngineOption = None,
    python: OwnCode = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Train some pruned trials to the end, and report what pruning may have missed.

    They are drawn at random, and trained with the seeds and rows that they had in the search.
    """
    at_least_one("--workers", workers)
    with as_option():
        service.audit.check_count(trials)
        service.search.check_engine(engine)
    devices = service.search.devices_for(device, workers)
    opened = service.create.open_existing(study, storage)
    with download_bar(err()) as on_download:
        auditing = service.audit.prepare_audit(opened.store, opened.study, trials=trials, on_download=on_download)
    view = LiveView(opened.store, auditing, err())
    with service.search.stop_on_signals() as stop:
        audited = service.audit.run_audit(
            opened.store, opened.study, devices=devices, engine=engine, observer=view, stop=stop
        )
    result = audited.result
    if result is not None and as_json:
        print_json(audit_json(result))
    elif result is not None:
        out().print(audit_table(result))
        out().print(f"\n{result.summary}")
    audited.raise_for_failure()
    if audited.outcome.stopped:
        raise typer.Exit(128 + stop.signal)
