"""`hpo audit`: did pruning miss anything?"""

from typing import TYPE_CHECKING, Annotated

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
from hpo.cli.render.audit import audit_table, pruner_table
from hpo.cli.render.live_view import LiveView
from hpo.cli.render.progress import download_bar

if TYPE_CHECKING:
    from hpo.service.audit import Audit


def audit(
    study: StudyName,
    *,
    trials: Annotated[
        int, typer.Option(metavar="N", help="Pruned trials to train to the end; 0 compares pruners alone.")
    ] = 6,
    workers: Workers = None,
    device: Device = "auto",
    engine: EngineOption = None,
    python: OwnCode = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Train some pruned trials to the end, and report what pruning may have missed.

    They are drawn at random, and trained with the seeds and rows that they had in the search. Below, from the kept
    curves alone: what other pruners would have kept and saved.
    """
    at_least_one("--workers", workers)
    with as_option():
        service.audit.check_count(trials)
        service.search.check_engine(engine)
    devices = service.search.devices_for(device, workers)
    opened = service.create.open_existing(study, storage)
    if trials == 0:
        _show(service.audit.begin_audit(opened.store, opened.study), as_json=as_json)
        return
    with download_bar(err()) as on_download:
        auditing = service.audit.prepare_audit(opened.store, opened.study, trials=trials, on_download=on_download)
    view = LiveView(opened.store, auditing, err())
    with service.search.stop_on_signals() as stop:
        audited = service.audit.run_audit(
            opened.store, opened.study, devices=devices, engine=engine, observer=view, stop=stop
        )
    if audited.result is not None:
        _show(audited.result, as_json=as_json)
    audited.raise_for_failure()
    if audited.outcome.stopped:
        raise typer.Exit(128 + stop.signal)


def _show(result: "Audit", *, as_json: bool) -> None:
    if as_json:
        print_json(audit_json(result))
        return
    if result.audited:
        out().print(audit_table(result))
    out().print(f"\n{result.summary}")
    if result.pruners is not None:
        out().print("")
        out().print(pruner_table(result.pruners))
