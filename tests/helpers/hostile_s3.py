"""An S3 server that behaves as told: it keeps objects as S3 does, or lies, trickles, floods and hangs."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

SECRET, TOKEN = "verysecretkey0123456789", "sessiontoken0123456789"
ESCAPE = "\x1b]0;owned\x07\x1b[31m"


class Request(BaseHTTPRequestHandler):
    """A request; `protocol_version` 1.1, so that the client may keep its connection."""

    protocol_version = "HTTP/1.1"
    server: "HostileS3"
    body = b""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:  # the client has gone
            self.close_connection = True

    def do_GET(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        behave = self.server.behaviours.get(self.command, honest)
        if behave is not silent_reader:
            self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        behave(self)

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        """Send a whole answer; `_` in names of headers stands for `-`."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(content)), **headers}.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def raw(self, content: bytes) -> None:
        """Send bytes as they are, and no more on this connection."""
        self.close_connection = True
        self.wfile.write(content)
        self.wfile.flush()

    def flood(self, content: bytes) -> None:
        """Send the same bytes until the client has gone or the test is over."""
        while not self.server.over.is_set():
            self.raw(content)
            self.server.sent += len(content)

    def trickle(self, content: bytes = b"x") -> None:
        """Send the same bytes twenty times a second."""
        while not self.server.over.wait(0.05):
            self.raw(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""


Behaviour = Callable[[Request], None]
HEAD = b"HTTP/1.1 200 OK\r\n"


class HostileS3(ThreadingHTTPServer):
    """The server; `behaviours` by method, honest by default."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.behaviours: dict[str, Behaviour] = {}
        self.objects: dict[str, bytes] = {}
        """Contents by bucket/key."""
        self.requests: list[str] = []
        self.sent = 0
        """Bytes sent by floods."""
        self.over = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: clients go away."""

    def always(self, behave: Behaviour) -> None:
        """Behave so whatever the method."""
        self.behaviours = dict.fromkeys(("GET", "PUT", "DELETE", "HEAD"), behave)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def hostile_s3() -> Iterator[HostileS3]:
    """Serve as long as the context lasts."""
    server = HostileS3()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()


def variables(url: str, nowhere: Path) -> dict[str, str]:
    """Return the variables by which a process uses the server, and none of the machine's own settings of AWS."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_ACCESS_KEY_ID": "AKIATESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": TOKEN,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(nowhere / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(nowhere / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }


def error_xml(code: str, message: str) -> bytes:
    """Return the body of S3's error answers."""
    text = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>1</RequestId></Error>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()


# Behaviours


def honest(request: Request) -> None:
    """Keep objects as S3 does."""
    name, objects = unquote(urlsplit(request.path).path).lstrip("/"), request.server.objects
    if request.command == "PUT":
        objects[name] = request.body
        request.answer(200, ETag='"0"')
    elif request.command == "DELETE":
        objects.pop(name, None)
        request.answer(204, Content_Length="")
    elif name in objects:
        request.answer(200, objects[name], ETag='"0"')
    else:
        request.answer(404, error_xml("NoSuchKey", "The specified key does not exist."))


def serving(content: bytes, **headers: str) -> Behaviour:
    """Answer every request with this content, and headers that may lie."""
    return lambda request: request.answer(200, content, **headers)


def failing(status: int, content: bytes = b"", **headers: str) -> Behaviour:
    """Answer every request with an error."""
    return lambda request: request.answer(status, content, **headers)


def endless(request: Request) -> None:
    """A body without length and end."""
    request.raw(HEAD + b"\r\n")
    request.flood(bytes(1 << 16))


def endless_chunks(request: Request) -> None:
    """Chunks without end."""
    request.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    request.flood(b"8000\r\n" + bytes(0x8000) + b"\r\n")


def endless_chunk_size(request: Request) -> None:
    """The line with the length of a chunk has no end."""
    request.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    request.flood(b"0" * 0x8000)


def terabyte(request: Request) -> None:
    """A body of a terabyte, announced."""
    request.raw(HEAD + b"Content-Length: 1000000000000\r\n\r\n")
    request.flood(bytes(1 << 16))


def endless_error(request: Request) -> None:
    """An error whose text has no end."""
    request.raw(b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\n\r\n<Error><Code>")
    request.flood(b"A" * 0x8000)


def endless_redirects(request: Request) -> None:
    """A redirect to itself."""
    request.answer(307, error_xml("TemporaryRedirect", "Go on"), Location=f"{request.server.url}/again{request.path}")


def trickled_body(request: Request) -> None:
    """A byte of the body now and then."""
    request.raw(HEAD + b"Content-Length: 1000000\r\n\r\n")
    request.trickle()


def trickled_header(request: Request) -> None:
    """A header that never ends, a byte now and then."""
    request.raw(HEAD + b"X-Long: ")
    request.trickle()


def trickled_continues(request: Request) -> None:
    """'100 Continue' now and then, and never an answer."""
    request.trickle(b"HTTP/1.1 100 Continue\r\n\r\n")


def endless_headers(request: Request) -> None:
    """Headers without end."""
    request.raw(HEAD)
    request.flood(b"X-A: " + b"y" * 100 + b"\r\n")


def silent(request: Request) -> None:
    """No answer at all."""
    request.close_connection = True
    request.server.over.wait()


def silent_reader(request: Request) -> None:
    """Not even the request's body is read."""
    silent(request)


def reset(request: Request) -> None:
    """The connection is reset in the middle of the body."""
    request.raw(HEAD + b"Content-Length: 1000\r\n\r\n" + b"x" * 10)
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()


def no_http(request: Request) -> None:
    """What is sent is no HTTP, but acts on terminals."""
    request.raw(f"{ESCAPE} {request.headers.get('X-Amz-Security-Token')} hello\r\n\r\n".encode())


def saying(content: bytes) -> Behaviour:
    """Send bytes as they are, then close."""
    return lambda request: request.raw(content)


def echoing(request: Request) -> None:
    """Refuse, and repeat what the request was signed with, and escapes, in every part of the error."""
    texts = [request.headers.get(name, "") for name in ("Authorization", "X-Amz-Security-Token")]
    text = " ".join(["&#27;[31m", ESCAPE.replace("\x1b", "\u009b").replace("\x07", ""), *texts])
    request.answer(403, error_xml(text, text), x_amz_request_id=texts[1])
