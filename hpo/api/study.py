"""`hpo.Study`: a study as an object, for notebooks and programs."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.api import display
from hpo.api.confirmation import Confirmation
from hpo.api.progress import observer_for
from hpo.api.trial import Trial, table_of
from hpo.errors import StudyError, UsageError
from hpo.service import stores
from hpo.service.create import open_existing
from hpo.service.search import devices_for, run_in_process, run_workers

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    import plotly.graph_objects as go

    from hpo.config import TrialConfig
    from hpo.recipe import EngineName
    from hpo.results.model_folder import Classifier
    from hpo.store.database.connect import Store
    from hpo.store.queries import StudyView
    from hpo.store.studies import StudyRecord

TOP = 10
"""Trials that a study shows of itself."""


class Study:
    """A study in a store: its trials, and what can be made of them.

    `hpo.search` and `hpo.open` return one. It reads the store anew at each access, so it also shows what other processes
    do. It can be pickled; the password of its store is left out, and is then taken from HPO_STORAGE.
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

    def run(
        self,
        *,
        trials: int | None = None,
        timeout: int | str | timedelta | None = None,
        workers: int | None = None,
        device: str = "auto",
        engine: "EngineName | None" = None,
        progress: bool = True,
    ) -> "Study":
        """Resume the study until a limit of its budget is reached; returns the study.

        `trials` and `timeout` (seconds, a text such as "30m", or a timedelta) change the budget, which counts all runs. Raises: StudyError if no worker can run;
        KeyboardInterrupt after an interrupt, once all workers have released their trials.
        """
        limits = {"trials": trials, "timeout": int(timeout.total_seconds()) if isinstance(timeout, timedelta) else timeout}
        changes = {name: value for name, value in limits.items() if value is not None}
        if changes:
            from hpo.store import studies

            studies.update_budget(self._store, self._record, **changes)
        self._work(self._record, workers=workers, device=device, engine=engine, progress=progress)
        return self

    def _work(
        self, record: "StudyRecord", *, workers: int | None, device: str, engine: "EngineName | None", progress: bool
    ) -> None:
        if workers is not None and workers < 0:
            raise UsageError(f"workers: must be at least 0, got {workers}. Use 0 to train in this process.")
        observer = observer_for(self._store, record, show=progress)
        if workers == 0:
            outcome = run_in_process(self._store, record, device=device, engine=engine, observer=observer)
        else:
            devices = devices_for(device, workers)
            outcome = run_workers(self._store, record, devices=devices, engine=engine, observer=observer)
        outcome.raise_for_failure()
        if outcome.stopped:
            raise KeyboardInterrupt

    def confirm(
        self,
        *,
        top: int = 5,
        seeds: int = 5,
        workers: int | None = None,
        device: str = "auto",
        engine: "EngineName | None" = None,
        progress: bool = True,
    ) -> Confirmation:
        """Train the `top` best configurations and the baseline again on `seeds` fresh seeds each, and judge them.

        Trainings that were done before count. Raises: UsageError for `top` < 1 or `seeds` < 2; StudyError if no trial is
        complete yet; KeyboardInterrupt after an interrupt: the same call resumes.
        """
        from hpo.service import confirm

        record = confirm.prepare(self._store, self._record, top=top, seeds=seeds)
        self._work(record, workers=workers, device=device, engine=engine, progress=progress)
        result = self.confirmation
        if result is None:
            raise StudyError(f'Study "{record.name}" has no configuration that was trained twice. See its trials.')
        return result

    @property
    def confirmation(self) -> Confirmation | None:
        """What `confirm` has shown so far; None if no configuration was trained on two fresh seeds."""
        from hpo.results import confirmation

        result = confirmation.evaluate(self._store, self._record)
        return None if result is None else Confirmation(result)

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
            f"{status.finished}{total} trials finished, {status.counts['PRUNED']} of them pruned; "
            f"{status.counts['FAIL']} failed." + ("" if status.over is None else f" Over: {status.over.reason}."),
            f"Confirmed: trial {confirmation.winner} is {confirmation.verdict}."
            if confirmation is not None
            else "Not confirmed yet: study.confirm()",
        ]
        table = table_of([Trial.of(view) for view in best], cost=self._record.recipe.cost is not None)
        columns = [name for name in ("number", "value", "cost", "epochs", "seconds", "configuration") if name in table]
        value = None if baseline is None else baseline.value
        picture = display.best_so_far(history, value, str(status.metric))
        return display.page(f"Study {self.name}", lines, table[columns], picture)
