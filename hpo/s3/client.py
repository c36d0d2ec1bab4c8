"""The client of botocore, with answers that are bounded in size and time, and its errors in words of ours."""

import os
import re
from collections.abc import Iterator
from typing import Any

from hpo import files
from hpo.s3.waiting import Exchange
from hpo.text import one_line

SILENCE = 10.0
"""Seconds without a byte after which a connection is taken for dead."""
ATTEMPTS, REQUESTS = 3, 8
"""Attempts of an operation; all its requests, with those that ask for the region of a bucket."""
ERROR_BYTES = 1 << 16
"""So much is read of an answer that is no file's content."""
PIECE = 1 << 16
"""Bytes that are read at once."""

_SAYING = (
    "ConfigParseError",
    "ConnectTimeoutError",
    "ConnectionClosedError",
    "CredentialRetrievalError",
    "EndpointConnectionError",
    "IncompleteReadError",
    "InvalidRegionError",
    "NoCredentialsError",
    "ParamValidationError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "ProxyConnectionError",
    "ReadTimeoutError",
    "SSLError",
    "TimeoutError",
    "TooLargeError",
)
"""Errors whose texts hold nothing that the server has written: that could be anything, such as the request's token."""


class Client:
    """A client for one operation at a time: `exchange` is the one under way."""

    def __init__(self, silence: float, most: int) -> None:
        """`silence` is at most `SILENCE`; a content has at most `most` bytes.

        Raises: ImportError without botocore; errors of any kind for settings of AWS that are wrong.
        """
        import botocore.session
        from botocore.config import Config
        from botocore.httpsession import URLLib3Session
        from botocore.utils import get_environ_proxies

        self._most = most
        self.exchange: Exchange | None = None
        session = botocore.session.get_session()
        retries = {"total_max_attempts": ATTEMPTS, "mode": "standard"}
        self.s3: Any = session.create_client("s3", config=Config(retries=retries))
        self.s3.meta.events.register("before-send.s3", self._send)
        self._http = URLLib3Session(
            verify=session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE", True),
            proxies=get_environ_proxies(self.s3.meta.endpoint_url),
            timeout=(silence, silence),
        )

    def _send(self, request: Any, **_: object) -> Any:
        """Send a request as botocore does, but read its answer only as far as it may go.

        Raises: OSError, and the errors of botocore.
        """
        exchange = self.exchange
        assert exchange is not None
        exchange.check()
        exchange.requests += 1
        if exchange.requests > REQUESTS:
            raise TooLargeError(f"it was redirected again and again: more than {REQUESTS} requests")
        content, request.stream_output = request.stream_output, True  # else all of the answer is read at once
        response = self._http.send(request)
        content = content and response.status_code < 300
        response.raw = Answer(response.raw, exchange, self._most if content else ERROR_BYTES, cut=not content)
        return response


class TooLargeError(OSError):
    """An answer, or a number of requests, that is too large."""


class Answer:
    """The body of an answer, in the place of urllib3's response: read as it comes, up to a size."""

    def __init__(self, raw: Any, exchange: Exchange, most: int, *, cut: bool) -> None:
        """If it has more than `most` bytes, it ends there (`cut`), or that is an error."""
        self._raw, self._exchange, self._most, self._cut = raw, exchange, most, cut
        self._read = getattr(raw, "read1", raw.read)  # read() would wait until the whole piece has come
        self._size = 0

    def read(self, amount: int | None = None) -> bytes:
        """Return at most `amount` bytes; none at the end. Raises: OSError, urllib3's errors."""
        self._exchange.check()
        piece = bytes(self._read(min(amount or PIECE, PIECE)))
        self._size += len(piece)
        if self._size > self._most:
            self.close()
            if self._cut:
                return b""
            raise TooLargeError(files.too_large(self._most))
        if not self._cut:
            self._exchange.bytes += len(piece)
        return piece

    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        """Yield what is left, in pieces. Raises: OSError, urllib3's errors."""
        while piece := self.read():
            yield piece

    def close(self) -> None:
        """Close the connection."""
        self._raw.close()


def status_of(error: BaseException) -> tuple[int, str]:
    """Return the HTTP status and S3's code of an answer that is an error; 0 and "" for what is none."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return 0, ""
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(status), str(response.get("Error", {}).get("Code", ""))


def reason(error: BaseException) -> str:
    """Return in a line why something with S3 has failed, without passwords, and with nothing that a server has written.

    But for the code of an error, if it is a word.
    """
    status, code = status_of(error)
    if status:
        return f"the server answered {status}" + (f" ({code})" if re.fullmatch("[A-Za-z]{1,50}", code) else "")
    name = type(error).__name__
    if name not in _SAYING:
        inner = getattr(error, "kwargs", {}).get("error")
        return f"no answer as S3 gives it ({name if inner is None else type(inner).__name__})"
    return re.sub(r"//[^/@\s]*@", "//", one_line(str(error)))[:300].rstrip(".")
