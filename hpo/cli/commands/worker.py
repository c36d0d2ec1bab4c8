"""`hpo worker`: one process that joins a study. It imports little, for each worker of a run starts so."""

import logging
import sys
from typing import Annotated

import typer

from hpo import service
from hpo.cli.options import Device, EngineOption, OwnCode, Storage, as_option, complete_study


def worker(
    *,
    study: Annotated[str, typer.Option(help="The study to work on.", autocompletion=complete_study)],
    device: Device = "auto",
    engine: EngineOption = None,
    python: OwnCode = None,
    storage: Storage = None,
    idle: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="End after so long with no trial to claim. [default: the study's end]"),
    ] = None,
    supervised: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Start a worker for a study; there can be many, on any machine that reaches the store."""
    with as_option():
        checked = service.search.check_engine(engine)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    number = service.worker.join_study(
        study, storage=storage, device=device, engine=checked, supervised=supervised, idle=idle
    )
    if number:
        raise typer.Exit(128 + number)
