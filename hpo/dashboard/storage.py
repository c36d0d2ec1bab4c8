"""The storage that the dashboard reads: Optuna's, with hpo's bulk loading and, on request, read-only."""

import optuna
import sqlalchemy as sa
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL
from typing_extensions import override

from hpo.optuna_compat import BulkReadingStorage, silence
from hpo.store.database import schema, trial_rows
from hpo.store.database.connect import check_store
from hpo.store.database.engine import engine_arguments


class FastStorage(BulkReadingStorage):
    """Optuna's storage, which loads a study of 10,000 trials in under a second instead of eleven."""

    @override
    def load(self, study_id: int, newer_than: int, also: set[int]) -> list[FrozenTrial]:
        """Return a study's trials with an id above `newer_than`, and those with the ids `also`."""
        columns = schema.trials.c
        wanted = sa.or_(columns.trial_id > newer_than, columns.trial_id.in_(also))
        with self.engine.connect() as connection:
            return trial_rows.load_where(connection, sa.and_(columns.study_id == study_id, wanted))


def dashboard_storage(url: URL, *, read_only: bool, threads: int) -> BaseStorage:
    """Open a store for a dashboard with `threads` threads; loaded trials are cached. Raises: StoreError."""
    check_store(url)
    silence()
    arguments = engine_arguments(url, read_only=read_only)
    if url.get_backend_name() == "postgresql":
        arguments["pool_size"] = threads
    storage = FastStorage(
        url.render_as_string(hide_password=False),
        engine_kwargs=arguments,
        skip_table_creation=True,
        skip_compatibility_check=True,
    )
    return optuna.storages.get_storage(storage)
