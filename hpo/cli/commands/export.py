"""`hpo export`: keep the winner."""

from pathlib import Path
from typing import Annotated

import typer

from hpo import service
from hpo.cli.console import err, print_text
from hpo.cli.options import Storage, StudyName, as_option


def export(
    study: StudyName,
    *,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file to write. [default: stdout]")] = None,
    format_: Annotated[str, typer.Option("--format", help="toml, json or yaml.")] = "toml",
    as_: Annotated[
        str, typer.Option("--as", help="config, or script: one readable PyTorch script without hpo.")
    ] = "config",
    trial: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Export this trial, such as another one of the Pareto front. [default: the best]"
        ),
    ] = None,
    storage: Storage = None,
) -> None:
    """Write the winning configuration and its origin: the confirmed winner, else the best trial by the metric."""
    with as_option():
        service.export.check_format(format_)
    with as_option("--as"):
        service.export.check_kind(as_)
    opened = service.create.open_existing(study, storage)
    chosen = service.export.choose_winner(opened.store, opened.study, trial=trial)
    if output is None:
        print_text(service.export.export_text(chosen, kind=as_, format=format_))
        return
    service.export.write_export(chosen, output, kind=as_, format=format_)
    err().print(f"{output}: {chosen.config.summary()}\n{chosen.chosen}")
