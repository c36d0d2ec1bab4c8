"""`hpo` in real processes that start at once (`tests.helpers.fork_server`)."""

import os
import shutil
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from tests.helpers.fork_server import Forked


class Process:
    """A running `python -m MODULE ARGUMENTS`, by default `hpo`, forked from the tests' server."""

    def __init__(
        self,
        *arguments: str,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        module: str = "hpo",
        output: Path | None = None,
        terminal: str = "",
    ) -> None:
        """Start it; `output` is a file that takes both stdout and stderr."""
        if output is None:
            streams = Path(mkdtemp(prefix="hpo-streams-"))
            weakref.finalize(self, shutil.rmtree, streams, ignore_errors=True)
            self.stdout_file, self.stderr_file = streams / "stdout", streams / "stderr"
        else:
            self.stdout_file = self.stderr_file = output
        self.arguments = arguments
        with self.stdout_file.open("ab") as out, self.stderr_file.open("ab") as err:
            self._process = Forked(
                [sys.executable, "-m", module, *arguments],
                stdout=out,
                stderr=err,
                env=os.environ if environment is None else environment,
                cwd=folder,
                terminal=terminal,
            )
        self.pid = self._process.pid

    @property
    def stdout(self) -> str:
        """All that it has written so far."""
        return self.stdout_file.read_text() if self.stdout_file.exists() else ""

    @property
    def stderr(self) -> str:
        """All that it has written so far."""
        return self.stderr_file.read_text() if self.stderr_file.exists() else ""

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def poll(self) -> int | None:
        """Return its exit code; None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float = 120) -> int:
        """Wait for its end; return its exit code. Raises: TimeoutExpired."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise subprocess.TimeoutExpired(list(self.arguments), seconds, self.stdout, self.stderr) from None

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it, as `kill -9` does."""
        self._process.kill()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def first_error_line(self, seconds: float = 60) -> str:
        """Wait for the first line on stderr; return it. Raises: AssertionError if there is none."""
        deadline = time.monotonic() + seconds
        while "\n" not in self.stderr:
            assert self.poll() is None and time.monotonic() < deadline, self.stderr
            time.sleep(0.05)
        return self.stderr.partition("\n")[0]


def start(*arguments: str, folder: Path, environment: Mapping[str, str] | None = None) -> Process:
    """Start `hpo`."""
    return Process(*arguments, folder=folder, environment=environment)


_PROGRAM = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.helpers.fork_server import Forked
sys.exit(Forked([sys.executable, "-m", "hpo", *sys.argv[1:]]).wait())
"""


def forked_program(folder: Path) -> Path:
    """Write a program `hpo` that a shell finds in a folder; its process is forked from the tests' server."""
    program = folder / "hpo"
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    return program


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


def hpo(
    *arguments: str,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    code: int | None = 0,
    seconds: float = 240,
) -> Ended:
    """Run `hpo` to its end; its exit code must be `code`, unless that is None."""
    process = Process(*arguments, folder=folder, environment=environment)
    try:
        ended = Ended(process.wait(seconds), process.stdout, process.stderr)
    except BaseException:
        process.kill()
        raise
    assert code is None or ended.returncode == code, ended.stderr
    return ended
