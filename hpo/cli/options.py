"""Options that several commands share, and the two consoles."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.errors import HpoError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from hpo.documents import Kind
    from hpo.recipe import EngineName

Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where studies are kept: sqlite:///FILE or postgresql://... "
        "[default: $HPO_STORAGE, else sqlite:///runs/studies.db]",
    ),
]


def _named(kind: "Kind") -> list[str]:
    from hpo import documents

    return sorted(documents.known(kind))


def complete_space(incomplete: str) -> list[str]:
    """Return the spaces that a half-typed name may become."""
    return [name for name in _named("space") if name.startswith(incomplete)]


def complete_recipe(incomplete: str) -> list[str]:
    """Return the recipes that a half-typed name may become."""
    return [name for name in _named("recipe") if name.startswith(incomplete)]


def complete_data(incomplete: str) -> list[str]:
    """Return the data sets that a half-typed name may become."""
    from hpo.data.registry import known

    return [name for name in known() if name.startswith(incomplete)]


def complete_study(incomplete: str) -> list[str]:
    """Return the studies of the configured store that a half-typed name may become; none if it cannot be read."""
    from hpo.store.database.connect import exists, open_store
    from hpo.store.database.url import configured
    from hpo.store.studies import names

    try:
        url = configured(None)
        if not exists(url):
            return []
        with open_store(url).read() as connection:
            return [name for name in names(connection) if name.startswith(incomplete)]
    except (HpoError, OSError):
        return []


StudyName = Annotated[
    str, typer.Argument(help="A study of `hpo studies list`.", metavar="STUDY", autocompletion=complete_study)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="ENGINE",
        help="solo: one trial at a time; packed: many small networks as one program; auto: packed where it measures "
        "faster. [default: the recipe's]",
    ),
]


def _allow(paths: list[Path] | None) -> list[Path] | None:
    from hpo import user_code

    for path in paths or ():
        user_code.trust(path)
    return paths


OwnCode = Annotated[
    list[Path] | None,
    typer.Option(
        "--python",
        metavar="FILE.py",
        callback=_allow,
        help="Let this code of yours run, for a study or model that needs it. May be given more than once.",
    ),
]
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


def engine_name(value: str | None) -> "EngineName | None":
    """Return an engine's name if it is one. Raises: UsageError."""
    match value:
        case None | "auto" | "packed" | "solo":
            return value
    raise UsageError(f'--engine: must be auto, packed or solo, got "{value}".')
