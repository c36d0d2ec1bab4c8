"""Export: a study's winner as a file that is enough to train it again."""

import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import Table

from hpo import __version__, documents, plain_yaml
from hpo.config import TrialConfig
from hpo.errors import DocumentError, StudyError, UsageError, suggestion
from hpo.results import confirmation
from hpo.results.candidates import Candidate, Confirmation
from hpo.results.intervals import LEVEL, Interval
from hpo.results.provenance import check_provenance, describe
from hpo.store import queries
from hpo.store.database.connect import Store
from hpo.store.database.url import shown
from hpo.store.record import State
from hpo.store.studies import StudyRecord
from hpo.store.views import TrialView

HEADER = """\
A complete training run. Train it: hpo train THIS_FILE -o FOLDER
[config] is all that training reads, and of [provenance] the data's fingerprint and the promised interval."""


@dataclass(frozen=True)
class Export:
    """A config, its provenance, and how it was chosen."""

    config: TrialConfig
    provenance: dict[str, Any]
    chosen: str
    """How it was chosen, in words: the confirmed winner, or only the best trial."""


def winner(store: Store, study: StudyRecord, number: int | None = None) -> Export:
    """Return a study's confirmed winner or, without a confirmation, its best trial by the metric; or a given trial.

    Raises: StudyError if no trial is complete, or if the given one is not.
    """
    with store.read() as connection:
        best = queries.best_trials(connection, study.study_id, 1)
        state = queries.study(connection, study.study_id)
    if not best:
        raise StudyError(
            f'Study "{study.name}" has no complete trial ({state.finished} finished, all pruned). '
            f"Continue it: hpo run --study {study.name}"
        )
    [trial] = best
    if number is not None:
        trial = _given(store, study, number)
    confirmed = confirmation.evaluate(store, study) if number is None else None
    if confirmed is not None:
        with store.read() as connection:
            trial_id = queries.trial_id_of(connection, study.study_id, confirmed.winner.number)
            trial = queries.trial(connection, trial_id) if trial_id is not None else trial
    provenance = {
        "store": shown(store.url),
        "study": study.name,
        "trial": trial.number,
        "validation_score": trial.value,
        "chosen_by_hand": True if number is not None else None,
        "searched_at": study.recipe.fidelity.fields() or None,
        **_confirmation_fields(confirmed),
        "finished_trials": state.finished,
        "space": study.space_name,
        "space_digest": hashlib.sha256(json.dumps(study.space.identity(), sort_keys=True).encode()).hexdigest(),
        "data_fingerprint": study.fingerprint,
        "device": trial.attributes.device,
        "precision": trial.attributes.precision,
        "hpo": __version__,
        **{name: version(name) for name in ("torch", "optuna")},
        "python": platform.python_version(),
    }
    if study.recipe.cost is not None:
        provenance[study.recipe.cost] = trial.cost
    config = study.full(trial.config)
    provenance = {key: value for key, value in provenance.items() if value is not None}
    return Export(config, provenance, describe(provenance))


def _given(store: Store, study: StudyRecord, number: int) -> TrialView:
    """Return a complete trial by its number. Raises: StudyError."""
    with store.read() as connection:
        trial_id = queries.trial_id_of(connection, study.study_id, number)
        trial = queries.trial(connection, trial_id) if trial_id is not None else None
    if trial is None or trial.state != State.COMPLETE:
        got = "none of this number" if trial is None else trial.state.lower()
        raise StudyError(
            f'Study "{study.name}": trial {number} must be complete to be exported, got {got}. '
            f"`hpo studies show {study.name}` lists the best."
        )
    return trial


def _confirmation_fields(result: Confirmation | None) -> dict[str, Any]:
    if result is None:
        return {"confirmed": False}
    winner: Candidate = result.winner
    return {
        "confirmed": True,
        "verdict": result.verdict,
        "better_than_baseline": result.certain,
        "fresh_seeds": len(winner.values),
        "fresh_values": [round(value, 6) for value in winner.values],
        "fresh_mean": round(winner.mean, 6),
        "fresh_mean_interval": [round(winner.interval.low, 6), round(winner.interval.high, 6)],
        "promised_test_score": _rounded(winner.promise),
        "promised_mean_test_score": _rounded(winner.promise_of_mean),
        "confidence": LEVEL,
    }


def _rounded(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [round(interval.low, 6), round(interval.high, 6)]


COMMENTS = {
    "config.seed": "initial weights, data order and dropout follow from it",
    "config.precision": "auto: bf16 where the device is faster with it",
    "config.split.validation": "rows cut from the training split, or a fraction of it",
    "provenance.validation_score": "of this trial in the search: the best of many, so likely too high",
    "provenance.searched_at": "what the search's trials were trained on instead of everything",
    "provenance.fresh_mean": "validation score on seeds that played no part in the choice",
    "provenance.promised_test_score": "where one more training should land on rows like those of training",
    "provenance.promised_mean_test_score": "the same of the mean of very many trainings",
    "provenance.data_fingerprint": "training refuses other data",
}


def to_toml(export: Export) -> str:
    """Return a config file as commented TOML."""
    document = tomlkit.document()
    for line in (*HEADER.splitlines(), f"This is {export.chosen}."):
        document.add(tomlkit.comment(line))
    document.add("config", _table("config", export.config.to_dict()))
    document.add("provenance", _table("provenance", export.provenance))
    return tomlkit.dumps(document)


def _table(path: str, content: dict[str, Any]) -> Table:
    table = tomlkit.table()
    for key, value in sorted(content.items(), key=lambda item: isinstance(item[1], dict)):
        if value is None:  # TOML has no null: what is left out has its default
            continue
        here = f"{path}.{key}"
        item = _table(here, value) if isinstance(value, dict) else tomlkit.item(value)
        if here in COMMENTS:
            item.comment(COMMENTS[here])
        table.add(key, item)
    return table


def to_json(export: Export) -> str:
    """Return a config file as JSON."""
    return json.dumps({"config": export.config.to_dict(), "provenance": export.provenance}, indent=2) + "\n"


def to_yaml(export: Export) -> str:
    """Return a config file as YAML; floats always with a point, which YAML 1.1 readers need."""
    content = json.loads(to_json(export))
    header = "".join(f"# {line}\n" for line in (*HEADER.splitlines(), f"This is {export.chosen}."))
    return header + plain_yaml.dump(content)


FORMATS: dict[str, Callable[[Export], str]] = {"toml": to_toml, "json": to_json, "yaml": to_yaml}


def check_export_format(name: str) -> str:
    """Return the name of a format if it is one. Raises: UsageError."""
    if name not in FORMATS:
        raise UsageError(f'format: no format named "{name}". {suggestion(name, FORMATS)}')
    return name


def read_config(path: Path) -> tuple[TrialConfig, dict[str, Any]]:
    """Return the config and the provenance of an exported file: TOML, or JSON or YAML by its suffix.

    Raises: UsageError for a missing file, DocumentError for another content.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file. `hpo export STUDY -o {path}` writes one.")
    whole = _read(path)
    content = whole.get("config") if isinstance(whole, dict) else None
    if not isinstance(content, dict):
        raise DocumentError(f"{path}: a table [config] is required. `hpo export STUDY -o FILE` writes such files.")
    provenance = whole.get("provenance") or {}
    if not isinstance(provenance, dict):
        raise DocumentError(f"{path}: provenance: must be a table, got {type(provenance).__name__}. Remove it.")
    provenance = {key: value for key, value in provenance.items() if value is not None}
    check_provenance(provenance, f"{path}: provenance")
    return TrialConfig.from_dict(content, f"{path}: config"), provenance


def _read(path: Path) -> Any:
    if path.suffix == ".json":
        return documents.read_json(path)
    return documents.read_yaml(path) if path.suffix in (".yaml", ".yml") else documents.read(path).content
