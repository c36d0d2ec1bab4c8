"""Users and passwords: kept as scrypt hashes, compared in constant time."""

import base64
import hashlib
import hmac
import os
import secrets
import shlex
import stat
from pathlib import Path

from hpo.errors import UsageError

_COST = {"n": 2**14, "r": 8, "p": 1}  # the interactive parameters of scrypt's paper


def hashed(user: str, password: str) -> str:
    """Return the line of an auth file for a user. Raises: UsageError for a name with a colon, or nothing."""
    if not user or ":" in user or not password:
        raise UsageError('dashboard: user and password must not be empty, nor the user\'s name contain ":".')
    salt = secrets.token_bytes(16)
    return f"{user}:scrypt:{salt.hex()}:{_scrypt(password, salt).hex()}"


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, dklen=32, **_COST)


class Credentials:
    """The users who may see the dashboard; checked with each request."""

    def __init__(self, lines: list[str], where: str) -> None:
        """Take lines of an auth file, or USER:PASSWORD. Raises: UsageError naming `where`, never a password."""
        self._users: dict[str, tuple[bytes, bytes]] = {}
        for line in lines:
            user, _, rest = line.partition(":")
            if not user or not rest:
                raise UsageError(f"{where}: must be USER:PASSWORD, or a line that `hpo dashboard --make-auth` printed.")
            if not rest.startswith("scrypt:"):
                rest = hashed(user, rest).partition(":")[2]
            try:
                _, salt, digest = rest.split(":")
                self._users[user] = bytes.fromhex(salt), bytes.fromhex(digest)
            except ValueError:
                raise UsageError(f"{where}: the entry of {user} is damaged. Make a new one: --make-auth.") from None
        self._key = secrets.token_bytes(32)
        self._known: set[bytes] = set()
        """Keyed digests of headers that were accepted: scrypt is slow on purpose, and a page makes many requests."""

    def knows(self, header: str) -> bool:
        """Return whether a header was accepted before; that is quick to find out."""
        digest = self._digest(header)
        return any(hmac.compare_digest(digest, known) for known in list(self._known))

    def allow(self, header: str) -> bool:
        """Return whether an Authorization header belongs to a known user; takes tens of milliseconds at first."""
        if self.knows(header):
            return True
        scheme, _, encoded = header.partition(" ")
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:  # no base 64, or no UTF-8
            return False
        # An unknown user costs the same time as a known one.
        salt, expected = self._users.get(user, (b"\0" * 16, b"\0" * 32))
        right = hmac.compare_digest(_scrypt(password, salt), expected) and scheme.lower() == "basic"
        if right and user in self._users:
            self._known.add(self._digest(header))
            return True
        return False

    def _digest(self, header: str) -> bytes:
        return hmac.digest(self._key, header.encode(errors="surrogateescape"), "sha256")


def configured(auth_file: Path | None) -> Credentials | None:
    """Return the credentials of `--auth-file`, else of `HPO_DASHBOARD_AUTH`; None if neither is set."""
    if auth_file is not None:
        try:
            with auth_file.open(encoding="utf-8") as content:
                mode = stat.S_IMODE(os.fstat(content.fileno()).st_mode)
                lines = [line.strip() for line in content if line.strip()]
        except OSError as error:
            raise UsageError(f"--auth-file: {auth_file} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError:
            raise UsageError(f"--auth-file: {auth_file} must be UTF-8 text.") from None
        if os.name == "posix" and mode & 0o077:
            raise UsageError(
                f"--auth-file: {auth_file} must be readable by its owner only, got mode {mode:o}: "
                f"others could guess the passwords from their hashes. Run: chmod 600 {shlex.quote(str(auth_file))}"
            )
        if not lines:
            raise UsageError(f"--auth-file: {auth_file} is empty. `hpo dashboard --make-auth USER` prints a line.")
        return Credentials(lines, str(auth_file))
    text = os.environ.get("HPO_DASHBOARD_AUTH")
    return Credentials([text], "HPO_DASHBOARD_AUTH") if text else None
