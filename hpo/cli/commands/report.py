"""`hpo report`: a study as one page."""

from pathlib import Path
from typing import Annotated

import typer

from hpo import service
from hpo.cli.console import err
from hpo.cli.options import Storage, StudyName


def report(
    study: StudyName,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")] = Path("report.html"),
    storage: Storage = None,
) -> None:
    """Write a study as one HTML page that works offline."""
    opened = service.create.open_existing(study, storage)
    written = service.report.write_report(opened.store, opened.study, output)
    err().print(f"{output}: {written.size / 1e6:.1f} MB, opens in any browser")
