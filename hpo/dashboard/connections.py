"""Connections of the dashboard's server: a request has so many seconds, and its body is taken only if it may be made.

Waitress alone waits for 120 seconds after the last byte, so a client that sends a byte now and then holds its
connection for good; and it takes a whole body before the application can refuse it.
"""

import time
from typing import Any

from typing_extensions import override
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.utilities import Error

from hpo.dashboard.guard import Guard, Refusal

HEADER_SECONDS = 10.0
"""Total time for the headers of a request, and for the first request of a connection to begin."""
BODY_SECONDS = 60.0
"""Total time for headers and body."""
LIMITS: dict[str, Any] = {
    "connection_limit": 800,  # below the usual limit of 1,024 open files
    "asyncore_use_poll": True,
    "channel_timeout": 30,
    "cleanup_interval": 5,
    "max_request_header_size": 32 * 1024,
    "max_request_body_size": 8 * 1024 * 1024,
}
"""Waitress's arguments. The largest body is an uploaded artifact, as text in base 64."""


class RefusedRequest(Error):  # type: ignore[misc]
    """The answer to a request whose body is not taken."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal

    @override
    def to_response(self, ident: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        """Return status, headers and body."""
        return self.refusal.status, self.refusal.all_headers(), self.refusal.body()


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    """A request that is refused after its headers where it has a body that may not be sent."""

    error: Any = None

    def __init__(self, channel: "DeadlineChannel", adj: Any) -> None:
        super().__init__(adj)
        self._channel = channel

    @override
    def received(self, data: bytes) -> int:
        """Take bytes; return how many were taken."""
        in_headers = not self.headers_finished
        taken: int = super().received(data)
        if in_headers and self.headers_finished and self.body_rcv is not None and self.error is None:
            environ = {f"HTTP_{name}": value for name, value in self.headers.items()}
            environ |= {"REQUEST_METHOD": self.command, "REMOTE_ADDR": str(self._channel.addr[0])}
            refusal = self._channel.guard.refusal(environ)
            if refusal is not None:
                self.error = RefusedRequest(refusal)
                self.expect_continue = False
                self.completed = True
        if self.completed and not self.empty:
            self._channel.begun = None
        return taken


class DeadlineChannel(HTTPChannel):  # type: ignore[misc]
    """A connection that is closed when a request does not arrive in time."""

    def __init__(self, guard: Guard, server: Any, *arguments: Any, **options: Any) -> None:
        """`guard` says which requests may have a body."""
        self.guard = guard
        self.begun: float | None = time.monotonic()
        """When the request that is awaited began; None between the requests of a connection."""
        super().__init__(server, *arguments, **options)

    def parser_class(self, adj: Any) -> _Parser:
        """Return the parser of the next request."""
        return _Parser(self, adj)

    @override
    def received(self, data: bytes) -> bool:
        """Take bytes of one or more requests."""
        if self.begun is None:
            self.begun = time.monotonic()
        taken: bool = super().received(data)
        return taken

    @override
    def readable(self) -> bool:
        """Say whether bytes are awaited; asked about once a second, which is used to look at the time."""
        if self.begun is not None and not self.requests and not self.total_outbufs_len:
            in_body = self.request is not None and self.request.headers_finished
            if time.monotonic() - self.begun > (BODY_SECONDS if in_body else HEADER_SECONDS):
                self.will_close = True
        answer: bool = super().readable()
        return answer
