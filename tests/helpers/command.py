"""`hpo` in real processes that start at once: forked from a server that has imported torch and what else they need.

A new interpreter spends most of a short command on imports. The processes here are the system's own in all else: an
id, an environment, a folder, files for stdout and stderr, signals, an exit code. The workers that `hpo run` starts
are new interpreters, as they are for a user.
"""

import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.helpers.preload"])


@dataclass(frozen=True)
class _Start:
    """What a process is started with."""

    module: str
    arguments: Sequence[str]
    folder: str
    environment: Mapping[str, str]
    stdout: str
    stderr: str
    terminal: str = ""
    """The device that becomes stdin, stdout, stderr and the controlling terminal."""


def _main(start: _Start) -> None:
    if start.terminal:
        os.setsid()
        os.dup2(os.open(start.terminal, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(0, 2)
    else:
        os.dup2(os.open(start.stdout, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        os.dup2(os.open(start.stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    on_terminal = bool(start.terminal)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False, buffering=1 if on_terminal else -1)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    os.environ.clear()
    os.environ.update(start.environment)
    if "TZ" in start.environment:
        time.tzset()
    os.chdir(start.folder)
    sys.argv = [start.module, *start.arguments]
    # As `python -m` does: the module by its file, with what has been imported before it.
    runpy.run_module(start.module, run_name="__main__", alter_sys=True)


class Process:
    """A running `python -m MODULE ARGUMENTS`."""

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
        start = _Start(
            module,
            arguments,
            str(folder),
            dict(os.environ if environment is None else environment),
            str(self.stdout_file),
            str(self.stderr_file),
            terminal,
        )
        self.arguments = arguments
        self._process = _SERVER.Process(target=_main, args=(start,), daemon=False)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

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
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return its exit code; None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float = 120) -> int:
        """Wait for its end; return its exit code. Raises: TimeoutExpired."""
        self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(list(self.arguments), seconds, self.stdout, self.stderr)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, as `kill -9` does."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

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
