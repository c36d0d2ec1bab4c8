"""`hpo report`: a study as one page."""

from pathlib import Path
from typing import Annotated

import typer

from hpo import service
from hpo.cli.console import err
from hpo.cli.options import Storage, StudyName, complete_study


def report(
    study: StudyName,
    beside: Annotated[
        str | None,
        typer.Argument(
            help="A second study of the store, to be compared with the first.", autocompletion=complete_study
        ),
    ] = None,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")] = Path("report.html"),
    storage: Storage = None,
) -> None:
    """Write a study as one HTML page that works offline; with a second one, both side by side."""
    opened = service.create.open_existing(study, storage)
    other = None if beside is None else service.create.open_existing(beside, storage).study
    written = service.report.write_report(opened.store, opened.study, output, beside=other)
    err().print(f"{output}: {written.size / 1e6:.1f} MB, opens in any browser")
