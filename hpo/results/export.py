"""From a study's best trial to a file that is enough to train it again."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import Table

from hpo import documents
from hpo.config import TrialConfig
from hpo.errors import DocumentError, StudyError, UsageError
from hpo.store import reading
from hpo.store.connect import Store
from hpo.store.study import Study
from hpo.store.url import shown


def best_config(store: Store, study: Study) -> tuple[TrialConfig, dict[str, Any]]:
    """Return the config of a study's best trial and where it comes from. Raises: StudyError if none is complete."""
    with store.read() as connection:
        best = reading.best_trials(connection, study.study_id, 1)
        state = reading.study(connection, study.study_id)
    if not best:
        raise StudyError(
            f'Study "{study.name}" has no complete trial ({state.finished} finished, all pruned). '
            f"Go on with it: hpo run --study {study.name}"
        )
    [trial] = best
    config = TrialConfig.from_dict(trial.attrs["config"], f"trial {trial.number}: config")
    provenance = {
        "store": shown(store.url),
        "study": study.name,
        "trial": trial.number,
        "validation_accuracy": trial.value,
        "finished_trials": state.finished,
        "space": study.space_name,
        "data_fingerprint": study.fingerprint,
        "device": trial.attrs.get("device"),
        "precision": trial.attrs.get("precision"),
        "hpo": version("hpo"),
        "torch": version("torch"),
        "optuna": version("optuna"),
        "python": platform.python_version(),
    }
    return config, {key: value for key, value in provenance.items() if value is not None}


def to_toml(config: TrialConfig, provenance: dict[str, Any]) -> str:
    """Return a config file as text."""
    document = tomlkit.document()
    document.add(tomlkit.comment("A complete training run. Train it: hpo train THIS_FILE -o FOLDER"))
    document.add("config", _table(config.to_dict()))
    source = _table(provenance)
    source.comment("where it comes from; not read by training, but for the data's fingerprint")
    document.add("provenance", source)
    return tomlkit.dumps(document)


def _table(content: dict[str, Any]) -> Table:
    table = tomlkit.table()
    for key, value in sorted(content.items(), key=lambda item: isinstance(item[1], dict)):
        table.add(key, _table(value) if isinstance(value, dict) else value)
    return table


def read_config(path: Path) -> tuple[TrialConfig, dict[str, Any]]:
    """Return what `to_toml` wrote. Raises: UsageError for a missing file, DocumentError for another content."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file. `hpo export STUDY -o {path}` writes one.")
    document = documents.read(path)
    content = document.content.get("config")
    if not isinstance(content, dict):
        raise DocumentError(f"{path}: a table [config] is required. `hpo export STUDY -o FILE` writes such files.")
    provenance = document.content.get("provenance", {})
    return TrialConfig.from_dict(content, f"{path}: config"), provenance if isinstance(provenance, dict) else {}
