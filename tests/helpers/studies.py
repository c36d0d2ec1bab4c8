"""Studies of a small space: made, worked on by a simulated engine, and read as Optuna reads them."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import optuna
import pytest
import sqlalchemy as sa

from hpo.artifacts import FolderFiles
from hpo.config import MLP, TrialConfig
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.loop import Loop
from hpo.runner.session import Session
from hpo.space import SearchSpace
from hpo.store.database.connect import Store
from hpo.store.database.url import parse
from hpo.store.leases.stopping import StopReason
from hpo.store.studies import StudyRecord
from hpo.training.engine import Engine

SPACE: dict[str, object] = {
    "data": "digits",
    "epochs": 6,
    "batch_size": 32,
    "mlp": {"depth": {"low": 1, "high": 3}, "width": {"low": 8, "high": 64, "step": 8}},
    "optimizer": {"name": {"choices": ["sgd", "adam"]}, "lr": {"low": 1e-5, "high": 1e-1, "log": True}},
}

on_sqlite = pytest.mark.parametrize("backend", ["sqlite"])
"""Marks a test of a store in which the kind of store plays no part: others run the same statements on both."""


class MakeStudy(Protocol):
    """The fixture `make_study`: makes a study of the small space in the test's store; `budget` goes to `Budget`."""

    def __call__(
        self,
        name: str = "s",
        pruner: str = "none",
        space: dict[str, object] | None = None,
        seed: int = 0,
        **budget: object,
    ) -> StudyRecord: ...


def small_space(**changes: object) -> SearchSpace:
    """Return a space that draws quickly."""
    return SearchSpace.model_validate_json(json.dumps(SPACE | changes))


def new_database(server: str, template: str = "template1") -> str:
    """Create a database on a Postgres server, empty or a copy of one that nobody uses; return its URL."""
    name = f"t{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(parse(server), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    engine.dispose()
    return sa.make_url(server).set(database=name).render_as_string(hide_password=False)


def work(
    store: Store, study: StudyRecord, engine: Engine, folder: Path, stopping: Callable[[], bool] = lambda: False
) -> StopReason | None:
    """Work on a study until it is over, or until `stopping`."""
    with Session(store, study, {"device": "fake"}) as session:
        return Loop(session, engine, CheckpointRetention(FolderFiles(folder), study.recipe.checkpoints), stopping).run()


def trials_of(store: Store, study: StudyRecord | str) -> list[optuna.trial.FrozenTrial]:
    """Return what Optuna itself reads."""
    name = study if isinstance(study, str) else study.name
    return optuna.load_study(study_name=name, storage=url_of(store)).trials


def mlp(config: TrialConfig) -> MLP:
    """Return the network of a configuration of the small space."""
    assert isinstance(config.model, MLP)
    return config.model


def url_of(store: Store) -> str:
    """Return the store's URL as Optuna takes it."""
    return store.url.render_as_string(hide_password=False)
