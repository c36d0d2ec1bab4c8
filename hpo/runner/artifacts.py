"""Where a study's files lie: `HPO_ARTIFACTS`, else beside the store; one folder per study."""

import os
from pathlib import Path

from sqlalchemy.engine import URL

from hpo.store.study import Study


def artifacts_root(url: URL) -> Path:
    """Return the folder of all studies' files."""
    configured = os.environ.get("HPO_ARTIFACTS")
    if configured:
        return Path(configured)
    if url.get_backend_name() == "sqlite":
        return Path(str(url.database)).parent / "artifacts"
    return Path("runs") / "artifacts"


def study_folder(url: URL, study: Study) -> Path:
    """Return the folder of one study's files; it goes by the study's uid, for names can change."""
    return artifacts_root(url) / study.uid
