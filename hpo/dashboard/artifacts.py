"""The artifacts that the dashboard shows: files of one folder, by their ids; nothing else is found."""

from pathlib import Path
from typing import BinaryIO

from bottle import HTTPError
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound
from typing_extensions import override

from hpo import files


class MissingArtifact(ArtifactNotFound, HTTPError):  # type: ignore[misc]
    """An artifact that is not there, which optuna-dashboard answers with status 404 wherever it is raised."""

    def __init__(self, artifact_id: str) -> None:
        HTTPError.__init__(self, 404, f"artifact {artifact_id!r} is not found")


class DashboardArtifacts(FileSystemArtifactStore):
    """A folder of artifacts. An id comes from the store, which another may have written: it may not lead elsewhere."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    @override
    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open an artifact. Raises: MissingArtifact."""
        self._check(artifact_id)
        return super().open_reader(artifact_id)

    @override
    def remove(self, artifact_id: str) -> None:
        """Delete an artifact. Raises: MissingArtifact."""
        self._check(artifact_id)
        super().remove(artifact_id)

    def _check(self, artifact_id: str) -> None:
        try:
            is_there = "/" not in artifact_id and files.under(self._folder, artifact_id).is_file()
        except OSError:
            is_there = False
        if not is_there:
            raise MissingArtifact(artifact_id)
