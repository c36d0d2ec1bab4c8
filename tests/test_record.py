"""The record of attributes: typed reading and writing, and the keys that stores of version 0.1.0 have."""

import json
import shutil
from pathlib import Path
from typing import Any, get_origin

import pytest
import sqlalchemy as sa

from hpo.errors import StudyError
from hpo.store import queries
from hpo.store.attributes import Attributes, known_attributes
from hpo.store.database import schema, trial_rows
from hpo.store.database.connect import Store, open_store
from hpo.store.database.study_rows import load_attributes, write_attributes
from hpo.store.database.trial_rows import Changes
from hpo.store.database.url import parse
from hpo.store.record import Failure, Repeat, State, StudyAttributes, TrialAttributes, Voided, WarmSource
from tests.helpers.studies import MakeStudy, trials_of

FIXTURE = Path(__file__).parent / "fixtures" / "v0.1.0" / "studies.db"

VALUES = {
    TrialAttributes.baseline: ("baseline", "user", "a", "a"),
    TrialAttributes.failure: ("failure", "user", Failure("oom", "no memory"), {"kind": "oom", "message": "no memory"}),
    TrialAttributes.void: ("void", "user", Voided("bad labels", "PRUNED"), {"why": "bad labels", "was": "PRUNED"}),
    TrialAttributes.is_void: ("void", "system", True, True),
    TrialAttributes.confirms: ("confirms", "user", Repeat(3, 1), {"trial": 3, "repeat": 1}),
    TrialAttributes.warm_from: (
        "warm_from",
        "user",
        WarmSource("s", "ab", 3),
        {"study": "s", "uid": "ab", "trial": 3},
    ),
    TrialAttributes.cost: ("cost", "system", 120.0, 120.0),
    TrialAttributes.outside: ("outside", "system", "too wide", "too wide"),
    TrialAttributes.root: ("root", "system", 4, 4),
}


@pytest.mark.parametrize("attribute", VALUES, ids=lambda a: f"{a.kind}:{a.key}")
def test_a_value_is_stored_as_in_0_1_0_and_read_back(attribute: Any, store: Store, make_study: MakeStudy) -> None:
    key, kind, value, stored = VALUES[attribute]
    study = make_study()
    with store.write() as connection:
        trial_id, _ = trial_rows.insert_trial(store, connection, study.study_id, State.WAITING)
        changes = Changes()
        changes.note(trial_id, attribute.entry(value))
        trial_rows.write(store, connection, changes)
    [trial] = trials_of(store, study)
    assert (trial.user_attrs if kind == "user" else trial.system_attrs) == {key: stored}
    with store.read() as connection:
        view = queries.trial(connection, trial_id)
    for attributes in (view.attributes, TrialAttributes.of(trial)):
        assert attribute.__get__(attributes, TrialAttributes) == value
        others = [a for a in known_attributes(TrialAttributes) if a is not attribute]
        assert all(a.__get__(attributes, TrialAttributes) is None for a in others)


def test_groups_are_read_by_the_rest_of_their_keys() -> None:
    entries = [TrialAttributes.constraints.entry("max_parameters", 0.25), TrialAttributes.artifacts.entry("a-1", "{}")]
    attributes = TrialAttributes({}, {entry.key: entry.value for entry in entries} | {"completed_rung_0": 0.5})
    assert attributes.constraints == {"max_parameters": 0.25} and attributes.artifacts == {"a-1": "{}"}
    assert [entry.key for entry in entries] == ["constraints:max_parameters", "artifacts:a-1"]


def test_what_other_tools_note_is_kept_apart() -> None:
    attributes = TrialAttributes({"baseline": "a", "my note": 1}, {"completed_rung_0": 0.5})
    assert attributes.unknown == {"my note": 1} and attributes.baseline == "a"


def test_no_two_attributes_have_the_same_key() -> None:
    for owner in (TrialAttributes, StudyAttributes):
        known = [(a.kind, a.key) for a in known_attributes(owner)]
        assert len(known) == len(set(known)) and known


def test_a_study_says_what_it_maximizes(store: Store, make_study: MakeStudy) -> None:
    make_study("one")
    study = make_study("loss", space={"metric": "neg_log_loss"})
    with store.read() as connection:
        attributes = load_attributes(connection, study.study_id)
    assert (attributes.metric, attributes.metric_label) == ("neg_log_loss", "validation negative log loss")
    assert (attributes.cost, attributes.cost_label) == (None, None)
    both = StudyAttributes({"recipe": {"objective": ["macro_f1", "latency_ms"]}}, {"study:metric_names": ["a", "b"]})
    assert (both.metric, both.cost, both.metric_label, both.cost_label) == ("macro_f1", "latency_ms", "a", "b")
    foreign = StudyAttributes({"space": {}}, {})
    assert (foreign.metric, foreign.cost, foreign.metric_label) == (None, None, "value")


def test_writing_an_attribute_of_a_study_replaces_it(store: Store, make_study: MakeStudy) -> None:
    study = make_study()
    with store.write() as connection:
        write_attributes(connection, study.study_id, StudyAttributes.space_name.entry("other"))
        write_attributes(connection, study.study_id, StudyAttributes.note_parts.entry("0", "text"))
    with store.read() as connection:
        attributes = load_attributes(connection, study.study_id)
    assert attributes.space_name == "other" and attributes.note_parts == {"0": "text"}
    assert attributes.recipe is not None and attributes.data_fingerprint == "f" * 64


def test_a_trial_without_a_configuration_says_so() -> None:
    with pytest.raises(StudyError, match="trial 3: must have a configuration, got none"):
        TrialAttributes({}, {}).training_config(3)


def test_the_record_knows_every_key_of_a_store_of_0_1_0(tmp_path: Path) -> None:
    shutil.copy(FIXTURE, tmp_path / "studies.db")
    store = open_store(parse(f"sqlite:///{tmp_path}/studies.db"))
    of_optuna = ("completed_rung_",)
    tables: list[tuple[sa.Table, type[Attributes], str]] = [
        (schema.trial_user_attributes, TrialAttributes, "user"),
        (schema.trial_system_attributes, TrialAttributes, "system"),
        (schema.study_user_attributes, StudyAttributes, "user"),
        (schema.study_system_attributes, StudyAttributes, "system"),
    ]
    with store.read() as connection:
        for table, owner, kind in tables:
            known = {a.key: a for a in known_attributes(owner) if a.kind == kind}
            groups = tuple(g.prefix for g in vars(owner).values() if hasattr(g, "prefix"))
            rows = connection.execute(sa.select(table.c.key, table.c.value_json)).all()
            assert rows
            for key, text in rows:
                if key.startswith((*groups, *of_optuna)):
                    continue
                expected = known[key].value_type
                value = json.loads(text)
                if hasattr(expected, "__dataclass_fields__"):
                    assert set(value) == set(expected.__dataclass_fields__)
                else:
                    assert isinstance(value, get_origin(expected) or expected), key
    store.dispose()
