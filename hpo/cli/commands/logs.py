"""`hpo logs`: what the workers of a study have written."""

from typing import Annotated

import typer

from hpo import service
from hpo.cli.console import out
from hpo.cli.options import Storage, StudyName, at_least_one

LINES = 20


def logs(
    *,
    study: StudyName,
    worker: Annotated[
        str | None, typer.Argument(metavar="[WORKER]", help="One worker, such as worker-0 or 0; its whole log.")
    ] = None,
    lines: Annotated[
        int | None, typer.Option(metavar="N", help=f"Lines of each log. [default: {LINES}; all of one WORKER's]")
    ] = None,
    storage: Storage = None,
) -> None:
    """Print what the workers of a study have written, wherever they ran.

    The logs are on the machine where `hpo run` was started.
    """
    at_least_one("--lines", lines)
    for log in service.logs.read_logs(study, worker, storage=storage):
        shown = log.text.splitlines()
        if lines is not None or worker is None:
            shown = shown[-(lines or LINES) :]
        if worker is None:
            out().print(f"==> {log.name} <==")
        for line in shown:
            out().print(line, soft_wrap=True)
