"""Imported once by the server that the processes of `tests.helpers.command` are forked from.

What is not installed is left out: the tests that need no GPU have it all, a machine with one may lack the dashboard.
"""

import contextlib
import importlib
import tempfile

for name in (
    "optuna._gp.acqf",
    "optuna._gp.gp",
    "optuna._gp.optim_mixed",
    "optuna.importance",
    "optuna.samplers",
    "optuna.storages._rdb.storage",
    "pandas",
    "plotly.graph_objects",
    "psycopg",
    "pytest",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.datasets",
    "sklearn.preprocessing",
    "torch",
    "hpo.cli",
    "hpo.plots",
    "hpo.results.export",
    "hpo.runner.session",
    "hpo.runner.worker",
    "hpo.training.packed.scheduling.engine",
    "hpo.training.solo",
):
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module(name)

with contextlib.suppress(ModuleNotFoundError), tempfile.TemporaryDirectory() as folder:
    from hpo.store.database.connect import open_store
    from hpo.store.database.url import parse
    from tests.helpers.migrations import read_migrations_once

    read_migrations_once()
    open_store(parse(f"sqlite:///{folder}/studies.db"), create=True).dispose()  # what is computed once in a process
