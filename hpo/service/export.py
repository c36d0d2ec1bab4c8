"""Export: a study's winner as a file that is enough to train it again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from hpo import files
from hpo.errors import UsageError
from hpo.results import export
from hpo.results.export import Export
from hpo.results.script import to_script
from hpo.store.database.connect import Store
from hpo.store.studies import StudyRecord

__all__ = ["ExportKind", "ExportedFile", "check_format", "check_kind", "choose_winner", "export_text", "write_export"]

ExportKind = Literal["config", "script"]


@dataclass(frozen=True)
class ExportedFile:
    """A file that was written, and what is in it."""

    path: Path
    export: Export


def check_format(format: str) -> None:
    """Check the name of a format. Raises: UsageError."""
    export.check_export_format(format)


def check_kind(kind: str) -> None:
    """Check what is to be written: a config or a script. Raises: UsageError."""
    if kind not in get_args(ExportKind):
        raise UsageError(f'kind: must be config or script, got "{kind}".')


def choose_winner(store: Store, study: StudyRecord, *, trial: int | None = None) -> Export:
    """Return a study's confirmed winner; without a confirmation, its best trial by the metric; or the given trial.

    Raises: StudyError if no trial is complete, or if the given one is not.
    """
    return export.winner(store, study, trial)


def export_text(chosen: Export, *, kind: str = "config", format: str = "toml") -> str:
    """Return an export as text: a config in the format toml, json or yaml, or a PyTorch script without hpo.

    Raises: UsageError for an unknown kind or format.
    """
    check_format(format)
    check_kind(kind)
    if kind == "script":
        return to_script(chosen.config, chosen.provenance)
    return export.FORMATS[format](chosen)


def write_export(chosen: Export, path: str | Path, *, kind: str = "config", format: str = "toml") -> ExportedFile:
    """Write an export to a file, whole or not at all.

    Raises: UsageError for an unknown kind or format, HpoError if the file cannot be written.
    """
    files.write_output(Path(path), export_text(chosen, kind=kind, format=format))
    return ExportedFile(Path(path), chosen)
