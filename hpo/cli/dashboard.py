"""`hpo dashboard`: watch studies in a browser."""

from pathlib import Path
from typing import Annotated

import typer

from hpo.cli.options import Storage, talk
from hpo.errors import UsageError


def dashboard(
    storage: Storage = None,
    host: Annotated[str, typer.Option(help="Address to listen on; any but this machine's own needs a password.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any that is free.")] = 8080,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Refuse every request that changes something.")
    ] = False,
    auth_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Who may look. [default: $HPO_DASHBOARD_AUTH]")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A name the dashboard is reached by; may be repeated.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open a browser.")] = False,
    make_auth: Annotated[
        str | None, typer.Option(metavar="USER", help="Ask for a password, print a line for --auth-file, and end.")
    ] = None,
) -> None:
    """Show the studies of a store in optuna-dashboard."""
    from hpo.dashboard import credentials

    if make_auth is not None:
        print(credentials.hashed(make_auth, typer.prompt("Password", hide_input=True, err=True)))
        return
    if not 0 <= port <= 65535:
        raise UsageError(f"--port: must be between 0 and 65535, got {port}.")
    users = credentials.configured(auth_file)

    from hpo.artifacts import dashboard_folder
    from hpo.dashboard.server import check_exposure, make_app, serve
    from hpo.store.database.url import configured, shown

    check_exposure(host, users)
    url = configured(storage)
    app = make_app(url, dashboard_folder(url), users, read_only=read_only, hosts=[host, *(allow_host or ())])

    def ready(address: str) -> None:
        talk().print(f"{shown(url)} is shown at {address}/dashboard  (Ctrl-C ends)")
        if open_browser:
            typer.launch(f"{address}/dashboard")

    serve(app, host, port, ready)
