"""Serve the dashboard of a store under a production WSGI server."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import waitress
from sqlalchemy.engine import URL
from waitress.server import TcpWSGIServer

from hpo.dashboard.compression import Compressed
from hpo.dashboard.connections import LIMITS, DeadlineChannel
from hpo.dashboard.credentials import Credentials
from hpo.dashboard.guard import Guard, is_loopback
from hpo.dashboard.renaming import Renaming
from hpo.dashboard.reports import Render, Reports
from hpo.dashboard.storage import dashboard_storage
from hpo.errors import HpoError, UsageError
from hpo.store.database.connect import Store

THREADS = 8


def make_app(
    url: URL,
    artifacts: Path,
    credentials: Credentials | None = None,
    *,
    render: Render | None = None,
    read_only: bool = False,
    hosts: Iterable[str] = (),
) -> Guard:
    """Return the guarded dashboard of a store as a WSGI application, with reports by `render` if that is given.

    Raises: StoreError.
    """
    import optuna_dashboard

    from hpo.dashboard import paging, parameter_summary
    from hpo.dashboard.artifacts import DashboardArtifacts  # bottle comes with optuna-dashboard

    parameter_summary.install()
    paging.install()
    storage = dashboard_storage(url, read_only=read_only, threads=THREADS)
    artifacts.mkdir(parents=True, exist_ok=True)
    inner = optuna_dashboard.wsgi(storage, artifact_store=DashboardArtifacts(artifacts))
    store = Store(url)
    shown = Compressed(Renaming(inner, store))
    whole = shown if render is None else Reports(shown, store, render)
    return Guard(whole, credentials, read_only=read_only, hosts=hosts)


def check_exposure(host: str, credentials: Credentials | None) -> None:
    """Refuse to serve a store to a network without authentication. Raises: UsageError."""
    if credentials is None and not is_loopback(host):
        raise UsageError(
            f"dashboard: --host {host} needs a user and a password, got none. Set HPO_DASHBOARD_AUTH=USER:PASSWORD, "
            "or --auth-file FILE (make one: hpo dashboard --make-auth USER > FILE)."
        )


def serve(app: Guard, host: str, port: int, ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve until interrupted; `ready` is called with the address. Raises: HpoError if the port is not available."""
    try:
        sockets: dict[int, Any] = {}
        server = waitress.create_server(app, sockets, host=host, port=port, threads=THREADS, ident="hpo", **LIMITS)
    except OSError as error:
        raise HpoError(f"dashboard: {host}:{port} cannot be used: {error.strerror}. Choose another --port.") from error
    listening = [each for each in sockets.values() if isinstance(each, TcpWSGIServer)]  # one for each address of a host
    for each in listening:
        each.channel_class = functools.partial(DeadlineChannel, app)
    name = "localhost" if host == "0.0.0.0" else f"[{host}]" if ":" in host else host
    ready(f"http://{name}:{listening[0].effective_port}")
    server.run()
