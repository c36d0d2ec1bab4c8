"""The way from `--on ray` to a launcher: connected, checked, hpo sent along where the cluster has none."""

import contextlib
import os
import socket
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import URL

import hpo
from hpo.errors import UsageError
from hpo.runner.launchers.contract import Resources
from hpo.runner.launchers.machines import Marker, refuse_one_machine, travelling_environment

if TYPE_CHECKING:
    from hpo.runner.launchers.ray_cluster import RayLauncher

CONNECT_SECONDS = 5.0
OPTIONS = ("wait",)


def ray_launcher(
    address: str,
    resources: Resources,
    options: Mapping[str, str],
    url: URL,
    *,
    say: Callable[[str], None] = lambda text: None,
) -> "tuple[RayLauncher, int]":
    """Return a launcher on the cluster at an address, and how many workers it can run at once; everything is checked.

    `address` is HOST:PORT of a Ray client server; empty for the cluster of this machine, or of RAY_ADDRESS. With the
    option wait=yes the cluster may lack the resources now. Raises: UsageError.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("on: ray needs Ray, which is not installed. Install it: pip install 'hpo[ray]'") from error
    for name in options:
        if name not in OPTIONS:
            raise UsageError(f'on_option: ray has no option "{name}". Known: {", ".join(OPTIONS)}.')
    made = not ray.is_initialized()
    with contextlib.ExitStack() as on_error:
        if made:
            _connect(address)
            on_error.callback(ray.shutdown)
        from hpo.runner.launchers import ray_cluster

        count = ray_cluster.check_resources(resources) if options.get("wait") != "yes" else 1
        if len(ray_cluster.nodes()) > 1:
            refuse_one_machine(url, "a Ray cluster of several nodes")
        environment = travelling_environment(url)
        marker = Marker.put(url)
        try:
            _check_nodes(ray_cluster.check_nodes, marker, environment, address=address, made=made, say=say)
        finally:
            marker.remove()
        on_error.pop_all()
    return ray_cluster.RayLauncher(resources, environment, connected=made), count


def _check_nodes(
    check: Callable[[Marker, dict[str, str]], None],
    marker: Marker,
    environment: dict[str, str],
    *,
    address: str,
    made: bool,
    say: Callable[[str], None],
) -> None:
    """Check the nodes; where they lack hpo, connect again in a way that sends it, and check again."""
    try:
        check(marker, environment)
        return
    except ModuleNotFoundError as error:
        missing = str(error)
    if not made or "'hpo'" not in missing:
        raise UsageError(f"on: the nodes of the Ray cluster lack a package: {missing}. Install hpo there.")
    import ray

    say("the cluster has no hpo; it is sent along")
    ray.shutdown()
    _connect(address, {"py_modules": [str(Path(hpo.__file__).parent)]})
    try:
        check(marker, environment)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"on: hpo was sent to the Ray cluster, which lacks a package of its own: {error}. Install it there: "
            f"pip install hpo=={hpo.__version__}"
        ) from error


def _connect(address: str, runtime_env: dict[str, Any] | None = None) -> None:
    """Connect this process to a cluster. Raises: UsageError."""
    import ray

    if address:
        _check_address(address)
    try:
        with warnings.catch_warnings(action="ignore"):  # the error says the same
            ray.init(
                address=f"ray://{address}" if address else "auto",
                log_to_driver=False,
                configure_logging=False,
                runtime_env=runtime_env,
            )
    except ConnectionError as error:
        if address:
            has_token = "RAY_AUTH_MODE" in os.environ
            token = "Is the token that of the cluster?" if has_token else "If it wants a token: RAY_AUTH_MODE=token."
            raise UsageError(
                f"on: ray://{address}: does not answer as a Ray client server: {_line(error)}. {token}"
            ) from error
        raise UsageError(
            "on: no Ray cluster is running on this machine, and RAY_ADDRESS names none. "
            "Start one: ray start --head; or name one: --on ray://HOST:10001"
        ) from error
    except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:  # the last: no token, for one
        raise UsageError(f"on: Ray refuses: {_line(error)}.") from error


def _check_address(address: str) -> None:
    """Check that something listens at HOST:PORT. Raises: UsageError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"on: must be ray://HOST:PORT, got ray://{address}. The port of Ray's client server is 10001.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"on: nothing answers at ray://{address}: {error}. Is it the client server of a Ray head node?"
        ) from error


def _line(error: Exception) -> str:
    """Return what Ray says, as one line."""
    return " ".join(str(error).split()).rstrip(".")
