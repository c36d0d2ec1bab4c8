"""What version 0.1.0 has made goes on working: its store, its exported files, its folder of a trained model."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import hpo
from hpo import data
from hpo.cli.app import app
from hpo.results import confirmation, export
from hpo.results.provenance import check_provenance
from hpo.runner.worker import train_study
from hpo.store import queries, studies
from hpo.store.database.connect import Store, open_store
from hpo.store.database.url import parse
from hpo.store.record import State

FIXTURE = Path(__file__).parent / "fixtures" / "v0.1.0"
WINNER = 2
"""The trial whose configuration is in best.toml."""


@pytest.fixture
def old_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A copy of the store of 0.1.0: the study digits with 8 trials, and its confirmation on 2 seeds."""
    shutil.copy(FIXTURE / "studies.db", tmp_path / "studies.db")
    monkeypatch.setenv("HPO_ARTIFACTS", str(tmp_path / "artifacts"))
    store = open_store(parse(f"sqlite:///{tmp_path}/studies.db"))
    yield store
    store.dispose()


def test_its_studies_are_listed_and_shown(old_store: Store) -> None:
    option = ["--storage", str(old_store.url), "--json"]
    listed = CliRunner().invoke(app, ["studies", "list", *option])
    shown = CliRunner().invoke(app, ["studies", "show", "digits", *option])
    assert listed.exit_code == shown.exit_code == 0, listed.output + shown.output
    assert [study["name"] for study in json.loads(listed.stdout)] == ["digits", "digits-confirm"]
    content = json.loads(shown.stdout)
    assert content["counts"] == {"COMPLETE": 3, "PRUNED": 5, "FAIL": 0, "RUNNING": 0, "WAITING": 0}
    assert (content["metric"], content["space"], content["data"]) == ("validation accuracy", "ann_digits", "digits")
    best = content["best_trials"][0]
    assert best["number"] == WINNER and best["config"]["optimizer"]["name"] == "adamw"
    text = CliRunner().invoke(app, ["studies", "show", "digits", "--storage", str(old_store.url)])
    assert text.exit_code == 0 and "8 of 8 trials finished" in text.stdout and "baseline" in text.stdout


def test_a_study_is_resumed_with_two_more_trials(old_store: Store) -> None:
    study = studies.load_study(old_store, "digits")
    studies.update_budget(old_store, study, trials=10)
    train_study(old_store, study, "cpu", threading.Event(), engine_name="solo")
    with old_store.read() as connection:
        view = queries.study(connection, study.study_id)
        added = [
            queries.trial(connection, trial_id)
            for number in (8, 9)
            if (trial_id := queries.trial_id_of(connection, study.study_id, number)) is not None
        ]
    assert view.finished == 10 and view.over is not None and "all 10 trials are finished" in view.over.reason
    assert len(added) == 2 and all(trial.state in (State.COMPLETE, State.PRUNED) for trial in added)
    assert all(trial.config.data == "digits" and trial.attributes.curves is not None for trial in added)


def test_its_confirmation_and_export_are_the_same(old_store: Store, tmp_path: Path) -> None:
    study = studies.load_study(old_store, "digits")
    result = confirmation.evaluate(old_store, study)
    _, provenance = export.read_config(FIXTURE / "best.toml")
    assert result is not None and result.winner.number == WINNER and result.certain and result.missing == 0
    assert result.verdict == provenance["verdict"]
    assert result.winner.mean == pytest.approx(provenance["fresh_mean"], abs=1e-6)
    chosen = export.winner(old_store, study)
    path = tmp_path / "best.toml"
    path.write_text(export.to_toml(chosen))
    config, again = export.read_config(path)
    assert config == export.read_config(FIXTURE / "best.toml")[0]
    for name in ("trial", "validation_score", "fresh_values", "data_fingerprint"):
        assert again[name] == provenance[name], name
    assert again["promised_test_score"] == provenance["promised_test_accuracy"]
    old, new = (check_provenance(content, "provenance").promise for content in (provenance, again))
    assert old is not None and new is not None and old.one == new.one and old.many is None


def test_its_exported_files_are_read_alike() -> None:
    as_toml, as_json = (export.read_config(FIXTURE / name) for name in ("best.toml", "best.json"))
    assert as_toml[0] == as_json[0] and as_toml[0].epochs == 30 and as_toml[0].optimizer.name == "adamw"
    assert as_toml[1] == as_json[1] and as_toml[1]["confirmed"] is True


def test_its_trained_model_predicts_the_test_rows() -> None:
    model = hpo.load(FIXTURE / "model")
    info = data.info("digits")
    data.fetch(info)
    config, provenance = export.read_config(FIXTURE / "model" / "config.toml")
    assert data.fingerprint(info, config.split) == provenance["data_fingerprint"]
    rows, metrics = data.load_test(info), json.loads((FIXTURE / "model" / "metrics.json").read_text())
    predicted = model.predict_proba(rows.x).argmax(1)
    assert model.classes == info.classes
    assert np.mean(predicted == rows.y) == pytest.approx(metrics["test_accuracy"], abs=1e-9)
