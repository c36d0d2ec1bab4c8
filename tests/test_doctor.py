"""What the doctor finds, and that it finds what is wrong."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
import torch

from hpo import data
from hpo.config import CNN
from hpo.data import Inputs, Parts
from hpo.doctor import machine_checks, space_checks
from hpo.space import load_space
from hpo.store.database import schema
from hpo.store.database.connect import Store
from hpo.store.studies import StudyRecord
from hpo.suggesters import RandomSuggester
from hpo.training.dataset import resident
from tests.helpers.training import MLP_RUN

CPU = torch.device("cpu")


def test_a_healthy_space_is_found_healthy() -> None:
    found = list(space_checks.check_space(load_space("ann_digits"), CPU))
    assert {finding.status for finding in found} == {"ok"}, found
    assert sum(finding.check == "network" for finding in found) == 2
    assert any("memorized" in finding.text for finding in found)


@pytest.fixture
def parts() -> Parts:
    space = load_space("ann_digits")
    return data.load_parts(data.info("digits"), space.split)


def changed(parts: Parts, **fields: object) -> Parts:
    return dataclasses.replace(parts, **fields)  # type: ignore[arg-type]


def test_rows_in_both_parts_are_noticed(parts: Parts) -> None:
    leaking = changed(parts, validation=Inputs(parts.train.x[:300], parts.train.y[:300]))
    found = list(space_checks.check_data(leaking, resident(leaking, MLP_RUN, CPU)))
    [finding] = [f for f in found if f.status == "warning"]
    assert finding.text == "300 validation rows are also training rows" and finding.remedy


def test_inputs_that_are_not_normalized_are_noticed(parts: Parts) -> None:
    off = changed(parts, mean=parts.mean + 5)
    assert any(
        "not 0 and 1" in f.text
        for f in space_checks.check_data(off, resident(off, MLP_RUN, CPU))
        if f.status == "warning"
    )


def test_rare_classes_and_impossible_labels_are_noticed(parts: Parts) -> None:
    keep = np.flatnonzero((parts.train.y != 3) | (np.arange(len(parts.train.y)) < 20))
    rare = changed(parts, train=Inputs(parts.train.x[keep], parts.train.y[keep]))
    assert any("the rarest has" in f.text for f in space_checks.check_data(rare, resident(rare, MLP_RUN, CPU)))
    impossible = changed(parts, train=Inputs(parts.train.x, parts.train.y + 1))
    found = list(space_checks.check_data(impossible, resident(impossible, MLP_RUN, CPU)))
    assert [f.text for f in found if f.status == "failure"] == ["digits: labels must lie in 0..9, got 0..10"]


def test_dropout_of_any_kind_is_no_hindrance_to_learning_memorizes(parts: Parts) -> None:
    config = load_space("ann_digits").draw(RandomSuggester(0), seed=0)
    network = CNN((8, 16), (0.5, 0.5), head_width=64, head_dropout=0.5, head_size=2)
    [finding] = space_checks.check_memorization(dataclasses.replace(config, model=network), parts, CPU)
    assert finding.status == "ok" and "memorized" in finding.text


def test_inputs_that_say_nothing_cannot_be_learned_memorizes(parts: Parts) -> None:
    config = load_space("ann_digits").draw(RandomSuggester(0), seed=0)
    blind = changed(parts, train=Inputs(np.zeros_like(parts.train.x), parts.train.y))
    [finding] = space_checks.check_memorization(config, blind, CPU)
    assert finding.status == "failure" and "is not memorized" in finding.text


def test_the_machine_is_examined(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HPO_ARTIFACTS", str(tmp_path))
    found = list(machine_checks.check_machine(store.url.render_as_string(hide_password=False)))
    assert not [f for f in found if f.status == "failure"]
    assert {f.check for f in found} == {"versions", "device", "store", "data", "disk"}
    assert any("no trial without a worker" in f.text for f in found)


def test_zombies_are_seen(store: Store, make_study: object) -> None:
    study: StudyRecord = make_study(trials=3)  # type: ignore[operator]
    with store.write() as connection:
        connection.execute(sa.insert(schema.trials), {"number": 0, "study_id": study.study_id, "state": "RUNNING"})
    found = list(machine_checks.check_store(store.url.render_as_string(hide_password=False)))
    assert any("1 trials are RUNNING without a worker" in f.text for f in found if f.status == "warning")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv("HPO_ARTIFACTS", str(tmp_path))
    assert any(f.status == "failure" for f in machine_checks.check_disk("sqlite:///x.db"))


def test_no_store_yet_is_no_fault(tmp_path: Path) -> None:
    [finding] = machine_checks.check_store(f"sqlite:///{tmp_path}/none.db")
    assert finding.status == "warning" and "does not exist yet" in finding.text
    assert not (tmp_path / "none.db").exists()
