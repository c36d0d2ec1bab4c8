"""Serve the dashboard of a store under a production WSGI server."""

from collections.abc import Callable, Iterable
from pathlib import Path

import waitress
from optuna.artifacts import FileSystemArtifactStore
from sqlalchemy.engine import URL

from hpo.dashboard.credentials import Credentials
from hpo.dashboard.guard import Application, Guard, is_loopback
from hpo.dashboard.storage import dashboard_storage
from hpo.errors import HpoError, UsageError

THREADS = 8


def make_app(
    url: URL,
    artifacts: Path,
    credentials: Credentials | None = None,
    *,
    read_only: bool = False,
    hosts: Iterable[str] = (),
) -> Application:
    """Return the guarded dashboard of a store as a WSGI application. Raises: StoreError."""
    import optuna_dashboard

    storage = dashboard_storage(url, read_only=read_only, threads=THREADS)
    artifacts.mkdir(parents=True, exist_ok=True)
    inner = optuna_dashboard.wsgi(storage, artifact_store=FileSystemArtifactStore(artifacts))
    return Guard(inner, credentials, read_only=read_only, hosts=hosts)


def check_exposure(host: str, credentials: Credentials | None) -> None:
    """Refuse to serve a store to a network without authentication. Raises: UsageError."""
    if credentials is None and not is_loopback(host):
        raise UsageError(
            f"dashboard: --host {host} needs a user and a password, got none. Set HPO_DASHBOARD_AUTH=USER:PASSWORD, "
            "or --auth-file FILE (make one: hpo dashboard --make-auth USER > FILE)."
        )


def serve(app: Application, host: str, port: int, ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve until interrupted; `ready` is called with the address. Raises: HpoError if the port is not available."""
    try:
        server = waitress.create_server(app, host=host, port=port, threads=THREADS, ident="hpo")
    except OSError as error:
        raise HpoError(f"dashboard: {host}:{port} cannot be used: {error.strerror}. Choose another --port.") from error
    ready(f"http://{host if host != '0.0.0.0' else 'localhost'}:{server.effective_port}")
    server.run()
