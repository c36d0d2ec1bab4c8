"""Compressed answers of the dashboard: the trials of a study are long, and a tenth as long compressed."""

import gzip
from collections.abc import Iterable
from typing import Any

from hpo.dashboard.guard import Application, Environ, StartResponse

LEAST_BYTES = 2**14
LEVEL = 1
"""A higher level takes up to twice as long for an answer up to 40 % shorter."""


class Compressed:
    """A WSGI application around another that compresses long answers in JSON, for clients that take gzip."""

    def __init__(self, inner: Application) -> None:
        self.inner = inner

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        if not _takes_gzip(environ.get("HTTP_ACCEPT_ENCODING", "")):
            return self.inner(environ, start_response)
        started: list[Any] = []
        answer = self.inner(environ, lambda *arguments: started.extend(arguments))
        status, headers, *rest = started
        kind = next((value for name, value in headers if name.lower() == "content-type"), "")
        encoded = any(name.lower() == "content-encoding" for name, _ in headers)
        if encoded or not kind.startswith("application/json"):
            start_response(status, headers, *rest)
            return answer
        try:
            body = b"".join(answer)
        finally:
            getattr(answer, "close", lambda: None)()
        if len(body) >= LEAST_BYTES:
            body = gzip.compress(body, LEVEL)
            plain = [(name, value) for name, value in headers if name.lower() != "content-length"]
            headers = [*plain, ("Content-Encoding", "gzip"), ("Content-Length", str(len(body)))]
        start_response(status, [*headers, ("Vary", "Accept-Encoding")], *rest)
        return [body]


def _takes_gzip(header: str) -> bool:
    """Return whether a client accepts gzip, by its Accept-Encoding."""
    offers = (offer.partition(";") for offer in header.lower().split(","))
    return any(name.strip() == "gzip" and rule.replace(" ", "") not in ("q=0", "q=0.0") for name, _, rule in offers)
