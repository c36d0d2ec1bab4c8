"""`hpo run` and `hpo init`: a study made or resumed, and searched."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.cli.options import (
    Device,
    EngineOption,
    OwnCode,
    Storage,
    at_least_one,
    complete_recipe,
    complete_space,
    complete_study,
    engine_name,
    out,
    talk,
)
from hpo.errors import UsageError

if TYPE_CHECKING:
    from hpo.store.database.connect import Store
    from hpo.store.studies import StudyRecord


SpaceOption = Annotated[
    str | None,
    typer.Option(help="Where to look: a name of `hpo spaces list` or a .toml file.", autocompletion=complete_space),
]
StudyOption = Annotated[
    str | None, typer.Option(help="The study's name. [default: the space's]", autocompletion=complete_study)
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        help="How to look: a name of `hpo recipes list` or a .toml file. [default: default]",
        autocompletion=complete_recipe,
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Your own data: a .csv, .parquet or .npz file, or a folder of images."),
]
TargetOption = Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of a table that holds the class.")]
TrialsOption = Annotated[
    int | None, typer.Option(metavar="N", help="The study's total of finished trials, over all runs and workers.")
]


ObjectiveOption = Annotated[
    str | None,
    typer.Option(
        metavar="METRIC",
        help="What to maximize on the validation rows: accuracy, balanced_accuracy, macro_f1 or neg_log_loss; "
        "with a cost to minimize besides: accuracy,parameters or accuracy,latency_ms. "
        "[default: the recipe's, else the space's]",
    ),
]


def run(
    space: SpaceOption = None,
    study: StudyOption = None,
    recipe: RecipeOption = None,
    trials: TrialsOption = None,
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="The study's total of searching time: 90s, 30m, 1h30m.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGET",
            help="Stop when a trial reaches this value of the metric; and with a table as --data, "
            "the column that holds the class. May be given twice.",
        ),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(metavar="N", help="Stop when the best has not improved for N finished trials.")
    ] = None,
    max_failures: Annotated[int | None, typer.Option(metavar="N", help="Stop when N trials have failed.")] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes. [default: one per CPU core, or one per GPU]")
    ] = None,
    device: Device = "auto",
    engine: EngineOption = None,
    python: OwnCode = None,
    storage: Storage = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the study. [default: the recipe's]")] = None,
    objective: ObjectiveOption = None,
    warm_from: Annotated[
        str | None, typer.Option(metavar="STUDY,...", help="Try first what was best in earlier studies, where it fits.")
    ] = None,
    data: DataOption = None,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Show it in a browser too, at localhost:8080.")
    ] = False,
) -> None:
    """Search a space. Stop with Ctrl-C; the same command goes on where it was."""
    from hpo.recipe import parse_timeout

    if space is None and study is None:
        raise UsageError("run: a space or a study is required, got neither. For example: hpo run --space ann_fashion")
    goal, column = _targets(target)
    limits: dict[str, Any] = {
        "trials": at_least_one("--trials", trials),
        "timeout": None if timeout is None else parse_timeout(timeout),
        "target": goal,
        "patience": at_least_one("--patience", patience),
        "max_failures": at_least_one("--max-failures", max_failures),
    }
    at_least_one("--workers", workers)
    if seed is not None and seed < 0:
        raise UsageError(f"--seed: must be at least 0, got {seed}.")
    named = engine_name(engine)

    from hpo.cli.prepare import check_objective, own_data, prepare
    from hpo.runner.devices import devices_for

    devices = devices_for(device, workers)
    chosen = {"seed": seed, "objective": check_objective(objective)}
    given, limits = ({k: v for k, v in some.items() if v is not None} for some in (chosen, limits))
    store, found, _ = prepare(space, study, recipe, given, storage, limits, own_data(data, column))
    if warm_from is not None:
        warm_start(store, found, warm_from)
    with watched(store, dashboard):
        search(store, found, devices, named)


def _targets(given: list[str] | None) -> tuple[float | None, str | None]:
    """Return the accuracy and the column that --target names. Raises: UsageError."""
    goal, column = None, None
    for text in given or ():
        try:
            value = float(text)
        except ValueError:
            if column is not None:
                raise UsageError(f'--target: one column can hold the class, got "{column}" and "{text}".') from None
            column = text
            continue
        if goal is not None:
            raise UsageError(f"--target: one accuracy can be the target, got {goal:g} and {value:g}.")
        goal = value
    return goal, column


@contextlib.contextmanager
def watched(store: "Store", wanted: bool) -> Iterator[None]:
    """Keep a dashboard of a store running, in a process of its own, if it is wanted."""
    if not wanted:
        yield
        return
    import subprocess

    from hpo.store.database.url import complete

    command = [sys.executable, "-m", "hpo", "dashboard"]
    # Its own process group: Ctrl-C is for the search, which ends it in its time.
    process = subprocess.Popen(command, env=os.environ | {"HPO_STORAGE": complete(store.url)}, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)


def warm_start(store: "Store", study: "StudyRecord", names: str) -> None:
    """Enqueue the best configurations of earlier studies; say which, and which do not fit and why."""
    from hpo.results.warm_start import warm_start as enqueue

    for name in [part.strip() for part in names.split(",") if part.strip()]:
        for number, summary, reason in enqueue(store, study, name):
            said = f"does not fit: {reason}" if reason else f"is tried first: {summary}"
            talk().print(f"{name}, trial {number}: {said}")


def search(store: "Store", study: "StudyRecord", devices: list[str], engine: str | None = None) -> None:
    """Run workers on a study until it is over or stopped, with a view of them; then print the leaderboard."""
    from hpo.cli.tables import leaderboard, next_commands
    from hpo.cli.workers import run_workers
    from hpo.errors import StudyError
    from hpo.store import queries

    failure, stopped = run_workers(store, study, devices, engine)
    with store.read() as connection:
        state = queries.study(connection, study.study_id)
        out().print(leaderboard(connection, study.study_id, top=10))
    if failure:
        raise StudyError(f'Study "{study.name}" stopped: {failure}')
    talk().print(next_commands(store.url, state))
    if stopped and state.over is None:
        sys.exit(130)


def init(
    space: SpaceOption = None,
    study: StudyOption = None,
    recipe: RecipeOption = None,
    trials: TrialsOption = None,
    data: DataOption = None,
    target: TargetOption = None,
    storage: Storage = None,
) -> None:
    """Make a store: the file, if it is SQLite, and the tables; with --space also a study for workers to join.

    Does no harm to what is there.
    """
    from hpo.store.database.connect import exists, open_store
    from hpo.store.database.url import configured, shown

    at_least_one("--trials", trials)
    if space is None and (study, recipe, trials) != (None, None, None):
        raise UsageError("init: --study, --recipe and --trials go with --space. Add it.")
    if space is not None:
        from hpo.cli.prepare import own_data, prepare

        limits = {"trials": trials} if trials else {}
        _, found, made = prepare(space, study, recipe, {}, storage, limits, own_data(data, target))
        if not made:
            talk().print(f'study "{found.name}" was there')
        return
    url = configured(storage)
    there = exists(url)
    open_store(url, create=True).dispose()
    talk().print(f"{shown(url)}: {'was there' if there else 'made'}")
