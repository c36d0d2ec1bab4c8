"""Options that several commands share, and the two consoles."""

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where studies are kept: sqlite:///FILE or postgresql://... "
        "[default: $HPO_STORAGE, else sqlite:///runs/studies.db]",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
PIPED_WIDTH = 240
"""Columns where there is no terminal to fit: enough to put a trial on one line."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def out() -> "Console":
    """Return the console for data: stdout."""
    return _console(stderr=False)


def talk() -> "Console":
    """Return the console for everything else: stderr."""
    return _console(stderr=True)


def _console(stderr: bool) -> "Console":
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, soft_wrap=stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    return console


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    print(json.dumps(value, indent=2, default=str))


def at_least_one(option: str, value: int | None) -> int | None:
    """Return a count if it is one. Raises: UsageError."""
    if value is not None and value < 1:
        raise UsageError(f"{option}: must be at least 1, got {value}.")
    return value
