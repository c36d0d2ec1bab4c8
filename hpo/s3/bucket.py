"""A study's files in a bucket."""

import io
import math
import os
import re
import threading
from collections.abc import Callable
from typing import TypeVar

from hpo import files
from hpo.errors import UsageError
from hpo.s3.client import PIECE, SILENCE, Client, TooLargeError, reason, status_of
from hpo.s3.waiting import SECONDS, Allowance, Exchange

T = TypeVar("T")

VARIABLE = "HPO_S3_SECONDS"
"""The environment's variable for the seconds that S3 may keep a worker waiting at once."""


def parse(url: str) -> tuple[str, str]:
    """Return bucket and prefix of s3://BUCKET/PREFIX; the prefix is empty or ends with a slash. Raises: UsageError."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise UsageError(f'HPO_ARTIFACTS: must name a bucket, got "{url}". Use s3://BUCKET/PREFIX.')
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]", bucket) or ".." in bucket:
        raise UsageError(
            "HPO_ARTIFACTS: a bucket's name must be 3 letters, digits, hyphens and dots or more, "
            f"got {re.sub('[^/]*@', '...@', bucket)!r:.80}. Use s3://BUCKET/PREFIX."
        )
    prefix = prefix.strip("/")
    parts = prefix.split("/") if prefix else []
    if not prefix.isprintable() or any(part in ("", ".", "..") for part in parts) or len(prefix.encode()) > 800:
        raise UsageError(
            'HPO_ARTIFACTS: the prefix must be up to 800 printable characters, without ".." and empty parts, '
            f"got {prefix!r:.80}. Use s3://BUCKET/PREFIX."
        )
    return bucket, "".join(f"{part}/" for part in parts)


def seconds_allowed() -> float:
    """Return the seconds that S3 may keep a worker waiting at once. Raises: UsageError if they are no number."""
    given = os.environ.get(VARIABLE)
    try:
        seconds = float(given) if given else SECONDS
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 3600:
        raise UsageError(f'{VARIABLE}: must be a number of seconds > 0 and <= 3600, got "{given}".')
    return seconds


class S3Files:
    """Files in a bucket, below a prefix.

    An operation runs in a thread, which is left behind if it does not return in time: what waits for an answer cannot
    be ended from outside.
    """

    def __init__(self, bucket: str, prefix: str, *, seconds: float | None = None, most: int | None = None) -> None:
        """`seconds` may S3 keep a worker waiting at once, by default those of the environment; `most` bytes has a file.

        Raises: UsageError without boto3, and for settings of AWS that are wrong.
        """
        self._bucket, self._prefix = bucket, prefix
        self._most = files.most_bytes() if most is None else most
        self._allowance = Allowance(seconds_allowed() if seconds is None else seconds)
        try:
            self._client = Client(min(SILENCE, self._allowance.seconds / 2), self._most)
        except ImportError as error:
            raise UsageError("HPO_ARTIFACTS: s3:// needs boto3. Install it: pip install 'hpo[s3]'") from error
        except Exception as error:  # of any kind, by what wrong settings bring their readers to
            raise UsageError(f"HPO_ARTIFACTS: s3:// needs settings of AWS that are right: {reason(error)}.") from error

    def write(self, name: str, content: bytes) -> None:
        """Put a file in place, whole or not at all. Raises: OSError."""
        if len(content) > self._most:
            raise OSError(f"{self._where(name)}: {files.too_large(self._most)}")

        def put(exchange: Exchange) -> None:
            body = _Upload(content, exchange)
            self._client.s3.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=body)

        self._do(name, put, len(content))

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None for a missing one. Raises: OSError."""
        return self._do(name, lambda _: self._get(name))

    def remove(self, name: str) -> None:
        """Delete a file, if it exists. Raises: OSError."""
        self._do(name, lambda _: self._client.s3.delete_object(Bucket=self._bucket, Key=self._prefix + name))

    def _where(self, name: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{name}"

    def _get(self, name: str) -> bytes | None:
        """Raises: errors of any kind."""
        try:
            answer = self._client.s3.get_object(Bucket=self._bucket, Key=self._prefix + name)
        except Exception as error:
            status, code = status_of(error)
            if status == 404 and code != "NoSuchBucket":
                return None
            raise
        content, body = io.BytesIO(), answer["Body"]
        try:
            if answer.get("ContentLength", 0) > self._most:
                raise TooLargeError(files.too_large(self._most))
            while piece := body.read(PIECE):
                content.write(piece)
        finally:
            body.close()
        return content.getvalue()

    def _do(self, name: str, action: Callable[[Exchange], T], size: int = 0) -> T:
        """Do something with a file, and wait for it as long as it may take. Raises: OSError."""
        before = self._client.exchange
        if before is not None and not before.over.is_set():
            raise OSError(f"{self._where(name)}: an earlier request still waits for its answer, no other is made")
        if (pause := self._allowance.pause()) > 0:
            raise OSError(f"{self._where(name)}: S3 is left alone for {math.ceil(pause)} s, for it took too long")
        exchange = self._client.exchange = Exchange(self._allowance, size)
        results, errors = list[T](), list[BaseException]()

        def run() -> None:
            try:
                results.append(action(exchange))
            except BaseException as error:  # of any kind, by what an answer brings its readers to
                errors.append(error)
            exchange.over.set()

        threading.Thread(target=run, name="s3", daemon=True).start()
        ended = exchange.wait()
        self._allowance.use(exchange.seconds if errors else exchange.counted)
        if not ended:
            raise OSError(f"{self._where(name)}: no whole answer within {exchange.seconds:.0f} s")
        if errors:
            raise OSError(f"{self._where(name)}: {reason(errors[0])}") from errors[0]
        return results[0]


class _Upload(io.BytesIO):
    """A content on its way; it cannot be read any more when its time is over."""

    def __init__(self, content: bytes, exchange: Exchange) -> None:
        super().__init__(content)
        self._exchange = exchange

    def read(self, size: int | None = -1, /) -> bytes:
        self._exchange.check()
        return super().read(size)
