"""Groups whose commands are imported when they are named, so that `hpo --help` imports none of them."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True)
class LazyCommand:
    """Where a command is, and its line in the list of commands."""

    place: str
    """MODULE:NAME of a function, or of a Typer application for a group of commands."""
    summary: str
    """First line of its help."""

    def load(self, name: str) -> Any:
        """Import the command and return what Typer makes of it."""
        module, _, attribute = self.place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, typer.Typer):
            application = typer.Typer(add_completion=False)
            application.command(name)(command)
            command = application
        loaded = typer.main.get_command(command)
        loaded.name = name
        return loaded


class LazyGroup(TyperGroup):
    """A group that lists its commands by their summaries and imports the one that is run, helped with or completed."""

    table: ClassVar[Mapping[str, LazyCommand]] = {}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._waiting = dict(self.table)
        for name, command in self.table.items():
            self.commands[name] = TyperCommand(name, help=command.summary)

    def load(self, name: str) -> None:
        """Import a command of this group, if it has one of this name that was not imported before."""
        command = self._waiting.pop(name, None)
        if command is not None:
            self.commands[name] = command.load(name)

    def load_all(self) -> None:
        """Import all commands of this group: for those who look at them, such as the reference page."""
        for name in list(self._waiting):
            self.load(name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command that the arguments begin with, then find it as any other."""
        self.load(args[0])
        return super().resolve_command(ctx, args)
