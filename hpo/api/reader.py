"""The reading side of `hpo.Study`: what a study holds, without changing it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.api import display
from hpo.api.confirmation import Confirmation
from hpo.api.trial import Trial, table_of
from hpo.artifacts import study_folder
from hpo.errors import StudyError
from hpo.service import stores
from hpo.service.create import open_existing
from hpo.store.database.url import complete
from hpo.store.record import State

if TYPE_CHECKING:
    import optuna
    import pandas as pd

    from hpo.store.database.connect import Store
    from hpo.store.studies import StudyRecord
    from hpo.store.views import StudyView

TOP = 10
"""Trials that a study shows of itself."""


class StudyReader:
    """A study in a store, read anew at each access, so that it also shows what other processes do.

    It can be pickled; the password of its store is left out, and is then taken from HPO_STORAGE.
    """

    def __init__(self, store: "Store", record: "StudyRecord") -> None:
        self._store, self._record = store, record

    def __getstate__(self) -> dict[str, str]:
        return {"name": self.name, "storage": self.storage}

    def __setstate__(self, state: Mapping[str, str]) -> None:
        storage = None if "***" in state["storage"] else state["storage"]
        opened = open_existing(state["name"], storage)
        self._store, self._record = opened.store, opened.study

    @property
    def name(self) -> str:
        """Name of the study."""
        return self._record.name

    @property
    def storage(self) -> str:
        """URL of the store, without its password."""
        return stores.store_name(self._store)

    @property
    def status(self) -> "StudyView":
        """Counts of trials by state, the budget, the workers at work, and why the study is over, if it is."""
        from hpo.store import queries

        with self._store.read() as connection:
            return queries.study(connection, self._record.study_id)

    @property
    def best(self) -> Trial:
        """The best complete trial by the metric. Raises: StudyError if no trial is complete yet."""
        from hpo.store import queries

        with self._store.read() as connection:
            best = queries.best_trials(connection, self._record.study_id, 1)
        if not best:
            raise StudyError(f'Study "{self.name}" has no complete trial yet. Resume it: study.run().')
        return Trial.of(best[0])

    @property
    def front(self) -> list[Trial]:
        """With two objectives, the Pareto front: the best by the metric first, each next one costs less."""
        from hpo.store import queries

        with self._store.read() as connection:
            return [Trial.of(view) for view in queries.front(connection, self._record.study_id)]

    @property
    def trials(self) -> "pd.DataFrame":
        """All trials, one row each, by number.

        Columns: number; state (COMPLETE, PRUNED, FAIL, RUNNING or WAITING); value of the metric; cost (with two
        objectives); epochs completed; seconds of training; parameters (trainable weights); baseline (its name);
        configuration in words; and one column for each drawn parameter.
        """
        from hpo.store import queries

        with self._store.read() as connection:
            views = queries.all_trials(connection, self._record.study_id)
        return table_of([Trial.of(view) for view in views], cost=self._record.recipe.cost is not None)

    @property
    def confirmation(self) -> Confirmation | None:
        """What `confirm` has shown so far; None if no configuration was trained again twice."""
        from hpo.results import confirmation

        result = confirmation.evaluate(self._store, self._record)
        return None if result is None else Confirmation(result)

    @property
    def _folder(self) -> Path:
        """Folder of the study's files on this machine."""
        return study_folder(self._store.url, self._record.uid)

    def to_optuna(self) -> "optuna.Study":
        """Return the study as Optuna reads it from the same store."""
        import optuna

        return optuna.load_study(study_name=self.name, storage=complete(self._store.url))

    def __repr__(self) -> str:
        status = self.status
        total = f" of {status.budget.trials}" if status.budget is not None else ""
        best = "no trial complete" if status.best_value is None else f"best {status.best_value:.4f}"
        return f'Study("{self.name}", {status.finished}{total} trials finished, {best})'

    def _repr_html_(self) -> str:
        from hpo.store import queries

        status, confirmation = self.status, self.confirmation
        with self._store.read() as connection:
            study_id = self._record.study_id
            best = queries.best_trials(connection, study_id, TOP)
            history = queries.best_so_far(connection, study_id)
            baseline = queries.baseline_trial(connection, study_id)
        total = f" of {status.budget.trials}" if status.budget is not None else ""
        lines = [
            f"{status.finished}{total} trials finished, {status.counts[State.PRUNED]} of them pruned; "
            f"{status.counts[State.FAIL]} failed." + ("" if status.over is None else f" Over: {status.over.reason}."),
            f"Confirmed: trial {confirmation.winner} is {confirmation.verdict}."
            if confirmation is not None
            else "Not confirmed yet: study.confirm()",
        ]
        table = table_of([Trial.of(view) for view in best], cost=self._record.recipe.cost is not None)
        columns = [name for name in ("number", "value", "cost", "epochs", "seconds", "configuration") if name in table]
        value = None if baseline is None else baseline.value
        picture = display.best_so_far(history, value, status.metric_label)
        return display.page(f"Study {self.name}", lines, table[columns], picture)
