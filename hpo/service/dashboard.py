"""The dashboard of a store, served until it is interrupted."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpo.artifacts import dashboard_folder
from hpo.dashboard import credentials
from hpo.dashboard.server import check_exposure, make_app, serve
from hpo.errors import UsageError
from hpo.store import studies
from hpo.store.database.connect import Store
from hpo.store.database.url import configured, shown


@dataclass(frozen=True, kw_only=True)
class DashboardRequest:
    """Which store to show, where, and to whom."""

    storage: str | None = None
    """URL of the store; None for `HPO_STORAGE`, else the default store."""
    host: str = "127.0.0.1"
    """Address to listen on; any but this machine's own needs a password."""
    port: int = 8080
    """Port to listen on; 0 for any that is free."""
    read_only: bool = False
    """Whether to refuse every request that changes something."""
    auth_file: Path | None = None
    """File with the users; None for `HPO_DASHBOARD_AUTH`."""
    allowed_hosts: Sequence[str] = ()
    """Further names that the dashboard is reached by."""


def hash_password(user: str, password: str) -> str:
    """Return a line for the file of users. Raises: UsageError for a name that cannot be one."""
    return credentials.hashed(user, password)


def check_port(port: int) -> None:
    """Check the number of a port. Raises: UsageError."""
    if not 0 <= port <= 65535:
        raise UsageError(f"port: must be between 0 and 65535, got {port}.")


def _report_of(store: Store, name: str) -> str:
    """Return a study's report as HTML. Raises: StudyError if there is none of this name."""
    from hpo.service.report import report_html  # it needs Plotly, and is used when a report is first asked for

    return report_html(store, studies.load_study(store, name))


def serve_dashboard(request: DashboardRequest, *, on_ready: Callable[[str, str], None]) -> None:
    """Serve a store's dashboard until interrupted; `on_ready` is called with the store's and the page's address.

    Raises: UsageError for a request that is not safe or out of range, StoreError for the store, HpoError for a port
    that is in use.
    """
    check_port(request.port)
    users = credentials.configured(request.auth_file)
    check_exposure(request.host, users)
    url = configured(request.storage)
    hosts = [request.host, *request.allowed_hosts]
    render = functools.partial(_report_of, Store(url))
    app = make_app(url, dashboard_folder(url), users, render=render, read_only=request.read_only, hosts=hosts)
    serve(app, request.host, request.port, lambda address: on_ready(shown(url), address))
