"""Consent to run Python code that a study or model folder needs."""

from collections.abc import Iterable
from pathlib import Path

from hpo import user_code


def allow_code(files: Iterable[str | Path]) -> None:
    """Let the code of these Python files run in this process and its workers. Raises: UsageError for a missing file."""
    for file in files:
        user_code.trust(Path(file))
