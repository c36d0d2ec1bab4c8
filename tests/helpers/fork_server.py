"""A server from which the processes of the tests are forked: it has imported torch and what else they need.

A new interpreter spends most of a short command on imports. What is forked here is the system's own in all else: an
id, an environment, a folder, files, signals, an exit code. `Forked` has what the tests and the supervisor of workers
use of `subprocess.Popen`.

The server runs as `python -m tests.helpers.fork_server SOCKET` and ends with the process that started it.
"""

import atexit
import contextlib
import faulthandler
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

SOCKET = "HPO_TESTS_FORK_SERVER"
"""Names the server's socket in the environment of all processes of a test run."""
PICTURES = "HPO_TESTS_PICTURES"
"""Is in the environment of processes whose trials shall have pictures. Each picture takes half a second; without it
none is drawn, as where matplotlib is not installed.
"""


def start_server() -> subprocess.Popen[bytes]:
    """Start the server for this process and all that it starts."""
    os.environ[SOCKET] = str(Path(tempfile.mkdtemp(prefix="hpo-fork-")) / "socket")
    command = [sys.executable, "-m", "tests.helpers.fork_server", os.environ[SOCKET]]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


class Forked:
    """A running `python -m MODULE ARGUMENTS`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int | None = None,
        stdout: IO[Any] | int = 1,
        stderr: IO[Any] | int = 2,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        text: bool = False,
        start_new_session: bool = True,
        terminal: str = "",
    ) -> None:
        """Start it, always in a session of its own. `terminal` becomes its stdin, stdout, stderr and terminal."""
        assert start_new_session
        module = command.index("-m")
        request = {
            "module": command[module + 1],
            "arguments": list(command[module + 2 :]),
            "faulthandler": "faulthandler" in command[:module],
            "environment": dict(os.environ if env is None else env),
            "folder": str(cwd or Path.cwd()),
            "terminal": terminal,
        }
        read, write = os.pipe() if stdin == subprocess.PIPE else (os.open(os.devnull, os.O_RDONLY), -1)
        out = stdout if isinstance(stdout, int) else stdout.fileno()
        err = out if stderr == subprocess.STDOUT else stderr if isinstance(stderr, int) else stderr.fileno()
        self._connection = _connected()
        content = json.dumps(request).encode()
        socket.send_fds(self._connection, [struct.pack("!I", len(content))], [read, out, err])
        self._connection.sendall(content)
        os.close(read)
        self.stdin: IO[Any] | None = os.fdopen(write, "w" if text else "wb") if write >= 0 else None
        self.args = list(command)
        self.pid: int = self._received()
        self.returncode: int | None = None

    def _received(self) -> int:
        content = self._connection.recv(4, socket.MSG_WAITALL)
        return int(struct.unpack("!i", content)[0]) if len(content) == 4 else -signal.SIGKILL

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its exit code. Raises: TimeoutExpired."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._connection, selectors.EVENT_READ)
                if selector.select(timeout):
                    self.returncode = self._received()
                    self._connection.close()
        return self.returncode

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


OF_SUBPROCESS = SimpleNamespace(Popen=Forked, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)
"""What stands in for the module subprocess where workers are started."""
JOBS_PATH = f"{Path(__file__).parent / 'forking'}{os.pathsep}{Path(__file__).parents[2]}"
"""PYTHONPATH of jobs whose workers shall be forked."""


def _connected() -> socket.socket:
    """Return a connection to the server, which may still be importing."""
    deadline = time.monotonic() + 120
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(os.environ[SOCKET])
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return connection


def fork_workers() -> None:
    """Have this process start its workers, and what draws their pictures, here; see `PICTURES`."""
    from hpo.doctor import resume_proof
    from hpo.runner import trial_plots, worker
    from hpo.runner.launchers import process

    for module in (process, trial_plots, resume_proof):
        vars(module)["subprocess"] = OF_SUBPROCESS
    if PICTURES not in os.environ:
        vars(worker)["can_draw"] = lambda: False


# The server.


def _serve(path: str) -> None:
    gc.disable()
    import tests.helpers.preload  # noqa: F401

    gc.freeze()  # what has been imported stays: no process looks through it, which would copy its memory
    gc.enable()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path + ".new")
    listener.listen(64)
    Path(path + ".new").rename(path)  # what can be seen can be connected to
    wake, woken = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken.fileno())
    children: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        for each in (listener, wake, sys.stdin):
            selector.register(each, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if sys.stdin in ready:  # whoever started the server has ended
                return
            if wake in ready:
                with contextlib.suppress(BlockingIOError):
                    wake.recv(4096)
            _reap(children)
            if listener in ready:
                connection, _ = listener.accept()
                _fork(connection, children, [listener, wake, woken, selector])


def _reap(children: dict[int, socket.socket]) -> None:
    """Tell the exit codes of those that have ended."""
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with contextlib.suppress(OSError):  # nobody may wait for it any more
                children[pid].sendall(struct.pack("!i", os.waitstatus_to_exitcode(status)))
            children.pop(pid).close()


def _fork(connection: socket.socket, children: dict[int, socket.socket], own: Sequence[Any]) -> None:
    size, fds, _, _ = socket.recv_fds(connection, 4, 3)
    content = connection.recv(struct.unpack("!I", size)[0], socket.MSG_WAITALL)
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for each in (*own, connection, *children.values()):
            each.close()
        os._exit(_run(json.loads(content), fds))
    for fd in fds:
        os.close(fd)
    with contextlib.suppress(OSError):
        connection.sendall(struct.pack("!i", pid))
    children[pid] = connection


def _run(request: Mapping[str, Any], fds: Sequence[int]) -> int:
    """Be the process that was asked for; return its exit code."""
    os.setsid()
    if request["terminal"]:
        terminal = os.open(request["terminal"], os.O_RDWR)
        fds = [*fds, terminal]
        for target in (0, 1, 2):
            os.dup2(terminal, target)
    else:
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
    for fd in fds:
        if fd > 2:
            os.close(fd)
    on_terminal = bool(request["terminal"])
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    unbuffered = on_terminal or "PYTHONUNBUFFERED" in request["environment"]
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False, buffering=1 if unbuffered else -1)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    if request["faulthandler"]:
        faulthandler.enable(sys.stderr)
    os.environ.clear()
    os.environ.update(request["environment"])
    if "TZ" in os.environ:
        time.tzset()
    os.chdir(request["folder"])
    sys.argv = [request["module"], *request["arguments"]]
    fork_workers()
    try:
        # As `python -m` does: the module by its file, with what has been imported before it.
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return code


if __name__ == "__main__":
    _serve(sys.argv[1])
