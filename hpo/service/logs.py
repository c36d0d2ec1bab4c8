"""The logs of a study's workers, as the run that started them has brought them to this machine."""

import re
from dataclasses import dataclass
from pathlib import Path

from hpo.artifacts import log_folder
from hpo.errors import StudyError, UsageError, suggestion
from hpo.service.stores import open_store
from hpo.store import studies

_NAME = re.compile(r"worker-\d+")
LONGEST = 10_000_000
"""Most bytes of a log that are read, from its end."""


@dataclass(frozen=True)
class WorkerLog:
    """What one worker, and those that took its place, have written."""

    name: str
    """worker-0, worker-1 and so on."""
    path: Path
    text: str


def read_logs(study: str, worker: str | None = None, *, storage: str | None = None) -> tuple[WorkerLog, ...]:
    """Return the logs of a study's workers, wherever those ran, or that of one worker (a name, or its number).

    Raises: StudyError if this machine has no logs of the study, UsageError if there is no such worker.
    """
    store = open_store(storage)
    try:
        folder = log_folder(store.url, studies.load_study(store, study).uid)
    finally:
        store.dispose()
    paths = {path.stem: path for path in folder.glob("worker-*.log") if _NAME.fullmatch(path.stem)}
    if not paths:
        raise StudyError(
            f'Study "{study}" has no logs of workers in {folder}. They are where hpo run was started; '
            "a worker that was started by hand writes to its terminal."
        )
    names = sorted(paths, key=lambda name: int(name.partition("-")[2]))
    if worker is not None:
        name = f"worker-{worker}" if worker.isdecimal() else worker
        if name not in paths:
            raise UsageError(f'worker: study "{study}" has none named "{worker}". {suggestion(name, names)}')
        names = [name]
    return tuple(WorkerLog(name, paths[name], _read(paths[name])) for name in names if not paths[name].is_symlink())


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LONGEST))
            return file.read().decode(errors="replace")
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {error.strerror or error}.") from error
