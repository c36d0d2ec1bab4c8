"""The storage that the dashboard reads: Optuna's, with hpo's bulk loading and, on request, read-only."""

from collections.abc import Container

import optuna
import sqlalchemy as sa
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL

from hpo.store.database import schema, trial_rows
from hpo.store.database.connect import check_store, engine_arguments


class FastStorage(RDBStorage):
    """Optuna's storage, which loads a study of 10,000 trials in under a second instead of eleven."""

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        columns = schema.trials.c
        older = [i for i in included_trial_ids if i <= trial_id_greater_than]
        wanted = sa.and_(
            columns.study_id == study_id,
            sa.or_(columns.trial_id > trial_id_greater_than, columns.trial_id.in_(older)),
        )
        with self.engine.connect() as connection:
            trials = trial_rows.load_where(connection, wanted, user_attrs=True)
        return [t for t in trials if states is None or t.state in states]


def dashboard_storage(url: URL, *, read_only: bool, threads: int) -> BaseStorage:
    """Open a store for a dashboard with `threads` threads; loaded trials are cached. Raises: StoreError."""
    check_store(url)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    arguments = engine_arguments(url, read_only)
    if url.get_backend_name() == "postgresql":
        arguments["pool_size"] = threads
    storage = FastStorage(
        url.render_as_string(hide_password=False),
        engine_kwargs=arguments,
        skip_table_creation=True,
        skip_compatibility_check=True,
    )
    return optuna.storages.get_storage(storage)
