"""`hpo.search`, `hpo.open` and `hpo.studies`: studies created, resumed and listed from Python."""

import dataclasses
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.api.inputs import to_source
from hpo.api.study import Study
from hpo.artifacts import data_folder
from hpo.errors import UsageError
from hpo.service.create import StudyRequest, open_existing, open_study
from hpo.service.data import OwnData, own_data
from hpo.service.places import Wanted, planned
from hpo.service.stores import open_store
from hpo.service.trust import allow_code
from hpo.service.warm_start import enqueue_best
from hpo.store.database.url import configured
from hpo.store.record import State

if TYPE_CHECKING:
    import pandas as pd

    from hpo.recipe import EngineName, Objective, StudyRecipe
    from hpo.space import SearchSpace


def search(
    space: "str | Path | Mapping[str, Any] | SearchSpace | None" = None,
    *,
    study: str | None = None,
    data: Any = None,
    label: str | None = None,
    test: Any = None,
    test_fraction: float = 0.2,
    trials: int | None = None,
    timeout: int | str | timedelta | None = None,
    stop_at: float | None = None,
    patience: int | None = None,
    max_failures: int | None = None,
    revive: int | None = None,
    objective: "Objective | None" = None,
    seed: int | None = None,
    recipe: "str | Path | Mapping[str, Any] | StudyRecipe | None" = None,
    warm_from: Iterable[str] = (),
    workers: int | None = None,
    device: str = "auto",
    engine: "EngineName | None" = None,
    on: str = "local",
    cpus: float | None = None,
    gpus: float | None = None,
    on_options: Mapping[str, str] | None = None,
    storage: str | None = None,
    python: Iterable[str | Path] = (),
    progress: bool = True,
) -> Study:
    """Search the hyperparameters of a classifier, and return the study.

    The study is created or, if the store has one of this name, resumed: it must have been made of the same space,
    recipe and data. Budgets are totals over all runs and workers, as in `hpo run`.

    Args:
        space: Where to look: a name of `hpo spaces list`, a path of a .toml file, the content of one as a dict, or a
            `SearchSpace`. None resumes the study that `study` names.
        study: Name of the study. [default: the name of the space]
        data: Data of your own, for a space that names none or in place of its data: a DataFrame (with `label`), a
            pair (X, y) of arrays or of a DataFrame and labels, a map-style torch data set of pairs (x, y), or the path
            of a CSV, Parquet or npz file or of a folder of images. X is [N, F], or images [N, H, W], [N, C, H, W] or
            [N, H, W, C], uint8 0..255 or floats. Arrays are kept as a file in the artifact folder.
        label: Column of a DataFrame or table file that holds the class.
        test: Test rows in the same form as `data`; the search never scores on them.
        test_fraction: Part of the rows that is cut off for a test where `test` is None, by class, >= 0 and < 1; 0 for
            no test.
        trials: Budget of finished trials, complete or pruned.
        timeout: Budget of time at work: seconds, a text such as "1h30m", or a timedelta.
        stop_at: Stop when a trial reaches this value of the metric.
        patience: Stop when the best value has not improved for this many finished trials.
        max_failures: Stop when this many trials have failed.
        revive: So many of the trials, the last of them, train on the pruned trials that promise most, in place of new
            ones.
        objective: Metric to maximize on the validation rows: accuracy, balanced_accuracy, macro_f1 or neg_log_loss;
            with a cost to minimize, ("accuracy", "parameters") or ("accuracy", "latency_ms").
        seed: Seed of the study, >= 0.
        recipe: How to look: a name of `hpo recipes list`, a path, a dict, or a `StudyRecipe`.
        warm_from: Names of earlier studies whose best configurations are tried first, where they fit.
        workers: Worker processes; 0 trains in this process. [default: one per CPU core, or one per GPU]
        device: auto, cpu, cuda, cuda:N or mps.
        engine: solo, packed or auto.
        on: Where the workers run: "local", "ray" (the cluster of this machine, of RAY_ADDRESS, or that this process is
            connected to), "ray://HOST:PORT", "slurm".
        cpus: CPU cores of each worker on Ray or Slurm. [default: 1]
        gpus: GPUs of each worker on Ray or Slurm; on Ray also a part, such as 0.25. [default: 0]
        on_options: Settings of the place; Slurm: partition, account, time (minutes), mem_gb, and others of submitit.
        storage: URL of the store. [default: the environment variable HPO_STORAGE, else sqlite:///runs/studies.db]
        python: Python files with code of yours that the space may run.
        progress: Show progress in the terminal or notebook.

    Raises:
        hpo.errors.HpoError: for whatever is wrong, in one line; nothing is created then.
        KeyboardInterrupt: after an interrupt, once all workers have released their trials; `search` again resumes.
    """
    if space is None and study is None:
        raise UsageError('search: a space or a study is required, got neither. For example: hpo.search("ann_digits")')
    allow_code(python)
    limits = {
        "trials": trials,
        "timeout": int(timeout.total_seconds()) if isinstance(timeout, timedelta) else timeout,
        "target": stop_at,
        "patience": patience,
        "max_failures": max_failures,
        "revive": revive,
    }
    overrides = {"seed": seed, "objective": objective}
    request = StudyRequest(
        space=space,
        study=study,
        recipe=recipe,
        overrides={name: value for name, value in overrides.items() if value is not None},
        limits={name: value for name, value in limits.items() if value is not None},
        storage=storage,
        data=_source(data, label, test=test, test_fraction=test_fraction, storage=storage),
    )
    wanted = Wanted(on=on, workers=workers, device=device, cpus=cpus, gpus=gpus, options=on_options or {})
    with planned(wanted, storage=storage) as plan:
        opened = open_study(request)
        enqueue_best(opened.store, opened.study, warm_from)
        result = Study(opened.store, opened.study)
        result.run(workers=workers, device=device, engine=engine, on=plan or on, progress=progress)
    return result


def _source(data: Any, label: str | None, *, test: Any, test_fraction: float, storage: str | None) -> OwnData | None:
    """Return where workers find the data, written to a file if it is not one."""
    if data is None:
        if label is not None or test is not None:
            raise UsageError("search: label and test go with data, got no data. Add data.")
        return None
    if not 0 <= test_fraction < 1:
        raise UsageError(f"test_fraction: must be at least 0 and below 1, got {test_fraction}. The default is 0.2.")
    if isinstance(data, str | Path):
        source = own_data(data, label)
        test_path = None if test is None else str(Path(test).absolute())
        return dataclasses.replace(source, test=test_path, test_fraction=test_fraction)
    return to_source(data, label, test=test, test_fraction=test_fraction, folder=data_folder(configured(storage)))


def open(study: str, *, storage: str | None = None, python: Iterable[str | Path] = ()) -> Study:
    """Return a study that exists; nothing is run or changed.

    Args:
        study: Name of the study.
        storage: URL of the store. [default: the environment variable HPO_STORAGE, else sqlite:///runs/studies.db]
        python: Python files with code of yours that the study's space needs.

    Raises:
        hpo.errors.StudyError: if there is no study of this name, or if it was not made by hpo.
        hpo.errors.StoreError: if the store is missing or cannot be reached.
    """
    allow_code(python)
    opened = open_existing(study, storage)
    return Study(opened.store, opened.study)


def studies(storage: str | None = None) -> "pd.DataFrame":
    """Return the studies of a store as a table: name, space, trials by state, best value, and whether it is over.

    Raises:
        hpo.errors.StoreError: if the store is missing or cannot be reached.
    """
    import pandas as pd

    from hpo.store import queries

    store = open_store(storage)
    with store.read() as connection:
        views = queries.studies(connection)
    store.dispose()
    rows = [
        {
            "study": view.name,
            "finished": view.finished,
            "complete": view.counts[State.COMPLETE],
            "pruned": view.counts[State.PRUNED],
            "failed": view.counts[State.FAIL],
            "best": view.best_value,
            "over": view.over is not None,
        }
        for view in views
    ]
    return pd.DataFrame(rows, columns=["study", "finished", "complete", "pruned", "failed", "best", "over"])
