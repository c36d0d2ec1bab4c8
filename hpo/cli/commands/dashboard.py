"""`hpo dashboard`: watch studies in a browser."""

from pathlib import Path
from typing import Annotated

import typer

from hpo import service
from hpo.cli.console import err
from hpo.cli.options import Storage, as_option


def dashboard(
    *,
    storage: Storage = None,
    host: Annotated[str, typer.Option(help="Address to listen on; other addresses than localhost need a password.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free port.")] = 8080,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Refuse every request that changes something.")
    ] = False,
    auth_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File of users and password hashes. [default: $HPO_DASHBOARD_AUTH]"),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Host name to accept; may be repeated.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open a browser.")] = False,
    make_auth: Annotated[
        str | None, typer.Option(metavar="USER", help="Ask for a password, print a line for --auth-file, and exit.")
    ] = None,
) -> None:
    """Show the studies of a store in optuna-dashboard."""
    if make_auth is not None:
        password = typer.prompt("Password", hide_input=True, err=True)
        print(service.dashboard.hash_password(make_auth, password))
        return
    request = service.dashboard.DashboardRequest(
        storage=storage,
        host=host,
        port=port,
        read_only=read_only,
        auth_file=auth_file,
        allowed_hosts=allow_host or (),
    )
    with as_option():
        service.dashboard.check_port(port)

    def announce(store: str, address: str) -> None:
        err().print(f"{store} is shown at {address}/dashboard  (Ctrl-C ends)")
        if open_browser:
            typer.launch(f"{address}/dashboard")

    service.dashboard.serve_dashboard(request, on_ready=announce)
