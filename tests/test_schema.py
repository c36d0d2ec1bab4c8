"""Our description of Optuna's tables is Optuna's, and what we read and write is what Optuna reads and writes."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState

from hpo.artifacts import FolderFiles
from hpo.optuna_compat import trial_id
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.loop import Loop
from hpo.runner.session import Session
from hpo.store.database import schema, trial_rows
from hpo.store.database.connect import Store
from hpo.store.record import State
from hpo.store.studies import StudyRecord
from hpo.training.simulated import SimulatedEngine
from tests.helpers.studies import url_of as url

OURS = {"hpo_schema", "hpo_studies", "hpo_workers", "hpo_leases"}


@pytest.mark.parametrize("name", [t for t in schema.optuna_tables.tables if t != "alembic_version"])
def test_a_table_is_described_as_optuna_makes_it(name: str) -> None:
    ours, theirs = schema.optuna_tables.tables[name], models.BaseModel.metadata.tables[name]
    for column in ours.columns:
        original = theirs.columns[column.name]
        assert type(column.type) is type(original.type)
        if isinstance(column.type, sa.Enum):
            assert isinstance(original.type, sa.Enum)
            assert (column.type.name, column.type.enums) == (original.type.name, original.type.enums)
    required = {c.name for c in theirs.columns if not c.nullable and c.default is None}
    assert required <= {c.name for c in ours.columns}


def test_the_revision_is_the_one_of_the_installed_optuna(store: Store) -> None:
    storage = optuna.storages.RDBStorage(url(store))
    assert storage.get_head_version() == storage.get_current_version() == schema.OPTUNA_REVISION


def test_trials_are_read_as_optuna_reads_them(store: Store, make_study: Callable[..., StudyRecord]) -> None:
    study = make_study()
    theirs = optuna.load_study(study_name=study.name, storage=url(store))
    for value in (0.25, float("inf"), float("-inf"), None):
        trial = theirs.ask()
        trial.suggest_float("lr", 1e-5, 1e-1, log=True)
        trial.suggest_int("width", 8, 64, step=8)
        trial.suggest_categorical("name", ["sgd", "adam", None, 3])
        trial.set_user_attr("note", {"a": [1, 2.5, None]})
        for step, report in enumerate([0.1, float("nan"), float("inf"), 0.3]):
            trial.report(report, step)
        if value is not None:
            theirs.tell(trial, value)
    theirs.enqueue_trial({"lr": 0.1})
    expected = optuna.storages.RDBStorage(url(store)).get_all_trials(study.study_id)
    with store.read() as connection:
        got = trial_rows.load_some(connection, [trial_id(t) for t in expected])
        bare = trial_rows.load_newer(connection, study.study_id, -1, [])
    assert list(map(repr, got)) == list(map(repr, expected))
    for frozen in expected:
        frozen.user_attrs = {}
    assert list(map(repr, bare)) == list(map(repr, expected))


def test_changes_written_twice_count_once(store: Store, make_study: Callable[..., StudyRecord]) -> None:
    study = make_study()
    with store.write() as connection:
        key, _ = trial_rows.insert_trial(store, connection, study.study_id, State.RUNNING)
    distribution = optuna.distributions.FloatDistribution(0, 1)
    changes = trial_rows.Changes(
        params={(key, "x"): trial_rows.param_change(0.5, distribution)},
        user_attrs={(key, "a"): "1"},
        system_attrs={(key, "b"): '"c"'},
        intermediate={(key, 1): 0.25, (key, 2): float("nan")},
        states={key: (State.COMPLETE, (0.25,))},
    )
    for _ in range(2):
        with store.write() as connection:
            trial_rows.write(store, connection, changes)
    [trial] = optuna.load_study(study_name=study.name, storage=url(store)).trials
    assert trial.params == {"x": 0.5} and trial.distributions == {"x": distribution}
    assert trial.user_attrs == {"a": 1} and trial.system_attrs == {"b": "c"}
    assert trial.state == TrialState.COMPLETE and trial.value == 0.25
    assert repr(trial.intermediate_values) == "{1: 0.25, 2: nan}"
    assert trial.datetime_complete is not None and trial.duration is not None


def test_optuna_goes_on_where_we_stopped(store: Store, make_study: Callable[..., StudyRecord], tmp_path: Path) -> None:
    study = make_study(trials=12)
    with Session(store, study, {}) as session:
        Loop(session, SimulatedEngine(), CheckpointRetention(FolderFiles(tmp_path), study.recipe.checkpoints)).run()
    theirs = optuna.load_study(study_name=study.name, storage=url(store))
    theirs.optimize(lambda t: study.space.draw(t, 0).optimizer.lr, n_trials=3)
    assert [t.number for t in theirs.trials] == list(range(15))
    assert theirs.best_trial.value == max(t.values[0] for t in theirs.trials)
    optuna.copy_study(from_study_name=study.name, from_storage=url(store), to_storage=url(store), to_study_name="copy")
    optuna.delete_study(study_name=study.name, storage=url(store))
    with store.read() as connection:
        assert set(sa.inspect(connection).get_table_names()) >= OURS
