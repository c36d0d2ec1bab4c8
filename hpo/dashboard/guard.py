"""The checks in front of the dashboard: optuna-dashboard itself authenticates nobody.

Its endpoints that delete and write are open, it answers to any Host header (so a web page could reach it on localhost
by a name that points there), and it serves uploaded HTML and SVG as pages of its own origin.
"""

import ipaddress
import json
import math
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hpo.dashboard.brake import Brake
from hpo.dashboard.credentials import Credentials

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

READING = frozenset(("GET", "HEAD", "OPTIONS"))
OWN_SITES = frozenset(("same-origin", "none"))
"""Values of Sec-Fetch-Site with which a browser says that no other origin made the request."""
SAFE_IMAGES = frozenset(("image/png", "image/jpeg", "image/gif", "image/webp"))
"""Artifacts that a browser may show; SVG can carry scripts."""
_ARTIFACT_POLICY = "sandbox; default-src 'none'; img-src 'self'; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Refusal:
    """The answer to a request that may not be made."""

    status: str
    reason: str
    headers: tuple[tuple[str, str], ...] = ()
    """Headers beyond those that every refusal has."""

    def all_headers(self) -> list[tuple[str, str]]:
        """Return all headers but the length."""
        plain = [("Content-Type", "application/json"), ("X-Content-Type-Options", "nosniff")]
        return [*plain, *self.headers]

    def body(self) -> bytes:
        """Return the reason as JSON."""
        return json.dumps({"reason": self.reason}).encode()


def is_loopback(host: str) -> bool:
    """Return whether a host is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """A WSGI application around another that lets only the right requests through."""

    def __init__(
        self,
        inner: Application,
        credentials: Credentials | None = None,
        *,
        read_only: bool = False,
        hosts: Iterable[str] = (),
    ) -> None:
        """`hosts` are names that the dashboard answers to, besides this machine's name and plain addresses."""
        self.inner, self.credentials, self.read_only = inner, credentials, read_only
        self.brake = Brake()
        self.hosts = {"localhost", socket.gethostname().lower(), *(host.lower() for host in hosts)}

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, or refuse it."""
        refusal = self.refusal(environ)
        if refusal is not None:
            start_response(refusal.status, [*refusal.all_headers(), ("Content-Length", str(len(refusal.body())))])
            return [refusal.body()]
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")  # optuna-dashboard fails without
        artifact = environ.get("PATH_INFO", "").startswith("/artifacts/")

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, _harden(headers, artifact=artifact), *rest)

        return self.inner(environ, start)

    def refusal(self, environ: Environ) -> Refusal | None:
        """Return why a request is refused, by its headers alone; None if it is not."""
        host = _host_of(environ.get("HTTP_HOST", ""))
        if not self._answers_to(host):
            return Refusal("403 Forbidden", f"unknown host {host!r}: start the dashboard with --allow-host {host}")
        refused = self._login(environ.get("HTTP_AUTHORIZATION", ""), environ.get("REMOTE_ADDR", ""))
        if refused is not None or environ["REQUEST_METHOD"] in READING:
            return refused
        if self.read_only:
            return Refusal("403 Forbidden", "this dashboard is read-only: it was started with --read-only")
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and origin.partition("://")[2] != environ.get("HTTP_HOST"):
            return Refusal("403 Forbidden", f"a page of {origin} may not change this store")
        site = environ.get("HTTP_SEC_FETCH_SITE", "none")
        if site not in OWN_SITES:  # another port of this host is "same-site"
            return Refusal("403 Forbidden", f"a page of another origin ({site}) may not change this store")
        return None

    def _login(self, header: str, address: str) -> Refusal | None:
        """Refuse who is not known. What is empty, or comes too soon after wrong passwords, costs no hash."""
        credentials = self.credentials
        if credentials is None or credentials.knows(header):
            return None
        challenge = ("WWW-Authenticate", 'Basic realm="hpo dashboard", charset="UTF-8"')
        required = Refusal("401 Unauthorized", "a user and a password are required", (challenge,))
        if not header:
            return required
        pause = math.ceil(self.brake.pause_left(address))
        if pause > 0:
            reason = f"too many wrong passwords: wait for {pause} s"
            return Refusal("429 Too Many Requests", reason, (("Retry-After", str(pause)),))
        right = credentials.allow(header)
        self.brake.note(address, right=right)
        return None if right else required

    def _answers_to(self, host: str) -> bool:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return host.lower() in self.hosts
        return True  # an address cannot be redirected by a name server


def _host_of(header: str) -> str:
    """Return the host of a Host header, without its port; empty for an invalid header."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _harden(headers: list[tuple[str, str]], *, artifact: bool) -> list[tuple[str, str]]:
    """Return response headers that stop a browser from treating data as a page."""
    extra = [("X-Content-Type-Options", "nosniff"), ("X-Frame-Options", "DENY"), ("Referrer-Policy", "no-referrer")]
    if not artifact:
        return [*headers, *extra]
    dropped = {"access-control-allow-origin", "content-disposition", "content-security-policy"}
    kept = [(name, value) for name, value in headers if name.lower() not in dropped]
    kind = next((value for name, value in headers if name.lower() == "content-type"), "").partition(";")[0].strip()
    disposition = "inline" if kind.lower() in SAFE_IMAGES else "attachment"
    return [*kept, *extra, ("Content-Security-Policy", _ARTIFACT_POLICY), ("Content-Disposition", disposition)]
