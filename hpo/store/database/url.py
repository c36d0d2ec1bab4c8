"""Store URLs: read, checked, and shown without their password."""

import os
import re

import sqlalchemy as sa
from sqlalchemy.engine import URL

from hpo.errors import UsageError

DEFAULT = "sqlite:///runs/studies.db"


def parse(text: str) -> URL:
    """Return a store's URL with the driver that hpo uses. Raises: UsageError, never showing a password."""
    if "://" not in text:
        is_file = text.endswith((".db", ".sqlite", ".sqlite3")) and not re.search("[:@]", text)
        hint = f"Did you mean sqlite:///{text}? " if is_file else ""
        raise UsageError(
            f'storage: must be a URL, got "{_masked(text)}". {hint}Use sqlite:///FILE or postgresql://USER@HOST/DATABASE.'
        )
    try:
        url = sa.make_url(text)
        kind = url.get_backend_name()
        if "@" in (url.host or ""):
            raise ValueError("a password with @ that is not quoted")
    except (sa.exc.ArgumentError, ValueError):
        raise UsageError(
            f'storage: is not a valid URL, got "{_masked(text)}". '
            "Use sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/DATABASE; quote special signs as %XX."
        ) from None
    if kind in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if kind == "sqlite":
        if url.host:
            raise UsageError(f'storage: sqlite takes three slashes, got "{_masked(text)}". Use sqlite:///FILE.')
        if not url.database or url.database == ":memory:":
            raise UsageError(f'storage: must name a file, got "{_masked(text)}". Use sqlite:///FILE.')
        return url
    raise UsageError(
        f'storage: must be sqlite or postgresql, got "{kind}". Use {DEFAULT} or postgresql://HOST/DATABASE.'
    )


def configured(option: str | None) -> URL:
    """Return the URL of `--storage`, else of `HPO_STORAGE`, else the default. Raises: UsageError."""
    return parse(option or os.environ.get("HPO_STORAGE") or DEFAULT)


def shown(url: URL) -> str:
    """Return the URL for display: without driver and password."""
    return url.set(drivername=url.get_backend_name(), query={}).render_as_string(hide_password=True)


def complete(url: URL) -> str:
    """Return the URL with its password, for a child process; never for display."""
    return url.render_as_string(hide_password=False)


def _masked(text: str) -> str:
    """Return a malformed URL without what may be a password: from the user's colon to the last @, or to a slash."""
    scheme = re.match(r"(?:[a-zA-Z][\w+.-]*:/+)?", text)
    start = scheme[0] if scheme is not None else ""
    rest = text[len(start) :]
    login, at, place = rest.rpartition("@")
    if at:
        rest = f"{login.partition(':')[0]}:***@{place}" if ":" in login else rest
    else:  # USER:PASSWORD/DATABASE, which reads as a host and its port
        rest = re.sub(r"^([^:/]*:)(?!\d*(?:/|$))[^/]*", r"\1***", rest)
    return start + re.sub(r"(\w*pass\w*=)[^&]*", r"\1***", rest, flags=re.IGNORECASE)
