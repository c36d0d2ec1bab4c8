"""A real pseudo-terminal of a given size, with what a person would see in it."""

import fcntl
import os
import pty
import struct
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyte

from tests.helpers.command import Process


class Terminal:
    """Runs `hpo` in a pseudo-terminal; keeps the screen, and what has scrolled off it."""

    def __init__(self, columns: int, lines: int, *arguments: str, folder: Path, environment: dict[str, str]) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=5000, ratio=0.5)
        self._stream = pyte.ByteStream(self.screen)
        self._lock = threading.Condition()
        self.raw = bytearray()
        own, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        kept = {k: v for k, v in environment.items() if k not in ("COLUMNS", "LINES")}
        self.process = Process(
            *arguments, folder=folder, environment=kept | {"TERM": "xterm-256color"}, terminal=os.ttyname(other)
        )
        self._other = other  # open until the process has opened it
        self._own = own
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                content = os.read(self._own, 65536)
            except OSError:
                return
            if not content:
                return
            with self._lock:
                self.raw += content
                self._stream.feed(content)
                self._lock.notify_all()

    def shown(self) -> list[str]:
        """Return the lines of the screen as they are now."""
        with self._lock:
            return [line.rstrip() for line in self.screen.display]

    def scrollback(self) -> str:
        """Return everything that stays: what has scrolled off, and the screen."""
        with self._lock:
            past = ["".join(line[x].data for x in range(self.screen.columns)) for line in self.screen.history.top]
        return "\n".join([line.rstrip() for line in past] + self.shown())

    def wait_for(self, condition: Callable[[list[str]], bool], seconds: float = 90) -> list[str]:
        """Return the first screen of which the condition holds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            lines = self.shown()
            if condition(lines):
                return lines
            if self.process.poll() is not None:
                time.sleep(0.3)
                lines = self.shown()
                assert condition(lines), "\n".join(lines)
                return lines
            with self._lock:
                self._lock.wait(0.5)  # for more to be shown, or for the process's end
        raise AssertionError("\n".join(self.shown()))

    def end(self, seconds: float = 120) -> int:
        """Wait for the command's end; return its exit code."""
        code = self.process.wait(seconds)
        os.close(self._other)
        self._thread.join(2)
        return code
