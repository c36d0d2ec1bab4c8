"""The two consoles: data goes to stdout, everything else to stderr."""

import json
import os
import sys
from typing import Any

from rich.console import Console

from hpo.terminal import TextConsole
from hpo.text import printable

PIPED_WIDTH = 240
"""Columns where there is no terminal to fit: enough to put a trial on one line."""


def out() -> Console:
    """Return the console for data: stdout."""
    return _console(stderr=False)


def err() -> Console:
    """Return the console for everything else: stderr."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    console = TextConsole(stderr=stderr, soft_wrap=stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    return console


def print_text(text: str) -> None:
    """Print a file's text on stdout: as it is, but in a terminal, where control characters are shown as escapes."""
    print(printable(text.replace("\r\n", "\n")) if sys.stdout.isatty() else text, end="")


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    print(json.dumps(value, indent=2, default=str))


def report(text: str, *, as_json: bool, **facts: Any) -> None:
    """Report what a command has done: to people, or to programs."""
    if as_json:
        print_json(facts)
    else:
        err().print(text)
