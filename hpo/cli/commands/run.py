"""`hpo run` and `hpo init`: a study created or resumed, and searched."""

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo import service
from hpo.cli.console import err, out
from hpo.cli.options import (
    Cpus,
    Device,
    EngineOption,
    Gpus,
    OnOption,
    OwnCode,
    PlaceOptions,
    Storage,
    Workers,
    as_option,
    at_least_one,
    complete_recipe,
    complete_space,
    complete_study,
    plan_from,
    renamed,
    with_option,
)
from hpo.cli.render.live_view import LiveView
from hpo.cli.render.opened import print_opened, print_warm_trials
from hpo.cli.render.progress import download_bar
from hpo.cli.render.studies import leaderboard_table
from hpo.errors import UsageError

if TYPE_CHECKING:
    from hpo.service.create import OpenedStudy, StudyRequest
    from hpo.service.data import OwnData
    from hpo.service.places import Plan

SpaceOption = Annotated[
    str | None,
    typer.Option(help="Search space: a name of `hpo spaces list` or a .toml file.", autocompletion=complete_space),
]
StudyOption = Annotated[
    str | None, typer.Option(help="The study's name. [default: the space's]", autocompletion=complete_study)
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        help="Recipe: a name of `hpo recipes list` or a .toml file. [default: default]",
        autocompletion=complete_recipe,
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Your own data: a .csv, .parquet or .npz file, or a folder of images."),
]
LabelOption = Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of a table that holds the class.")]
TrialsOption = Annotated[
    int | None, typer.Option(metavar="N", help="Total number of finished trials, over all runs and workers.")
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


def _target_advice(value: str) -> str:
    try:
        float(value)
    except ValueError:
        return with_option("--label")(value)
    return with_option("--stop-at")(value)


OldRunTarget = Annotated[
    str | None,
    typer.Option(
        "--target", hidden=True, callback=renamed("--target", "--stop-at VALUE or --label COLUMN", _target_advice)
    ),
]
OldInitTarget = Annotated[
    str | None,
    typer.Option("--target", hidden=True, callback=renamed("--target", "--label COLUMN", with_option("--label"))),
]


def run(
    *,
    space: SpaceOption = None,
    study: StudyOption = None,
    recipe: RecipeOption = None,
    trials: TrialsOption = None,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="Total search time: 90s, 30m, 1h30m.")] = None,
    stop_at: Annotated[
        float | None, typer.Option(metavar="VALUE", help="Stop when a trial reaches this value of the metric.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(metavar="N", help="Stop when the best value has not improved for N finished trials.")
    ] = None,
    max_failures: Annotated[int | None, typer.Option(metavar="N", help="Stop when N trials have failed.")] = None,
    revive: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="The last N of the trials train on the pruned trials that promise most, in place of new ones.",
        ),
    ] = None,
    workers: Workers = None,
    device: Device = "auto",
    engine: EngineOption = None,
    on: OnOption = "local",
    cpus: Cpus = None,
    gpus: Gpus = None,
    on_option: PlaceOptions = None,
    python: OwnCode = None,
    storage: Storage = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the study. [default: the recipe's]")] = None,
    objective: ObjectiveOption = None,
    warm_from: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY,...", help="Start with the best configurations of earlier studies that fit this space."
        ),
    ] = None,
    data: DataOption = None,
    label: LabelOption = None,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Also start the dashboard, at localhost:8080.")
    ] = False,
    old_target: OldRunTarget = None,
) -> None:
    """Search a space. Stop with Ctrl-C; run the same command to resume."""
    if space is None and study is None:
        raise UsageError("run: a space or a study is required, got neither. For example: hpo run --space ann_fashion")
    limits = {
        "trials": at_least_one("--trials", trials),
        "timeout": None if timeout is None else service.create.parse_timeout(timeout),
        "target": stop_at,
        "patience": at_least_one("--patience", patience),
        "max_failures": at_least_one("--max-failures", max_failures),
        "revive": at_least_one("--revive", revive),
    }
    at_least_one("--workers", workers)
    if seed is not None and seed < 0:
        raise UsageError(f"--seed: must be at least 0, got {seed}.")
    with as_option():
        service.search.check_engine(engine)
        goal = None if objective is None else service.create.parse_objective(objective)
    plan = plan_from(on, workers=workers, device=device, cpus=cpus, gpus=gpus, place_options=on_option, storage=storage)
    request = service.create.StudyRequest(
        space=space,
        study=study,
        recipe=recipe,
        overrides=_given(seed=seed, objective=goal),
        limits=_given(**limits),
        storage=storage,
        data=_own_data(data, label),
    )
    with contextlib.closing(plan.launcher):
        _run(request, plan, warm_from=warm_from, engine=engine, dashboard=dashboard)


def _run(request: "StudyRequest", plan: "Plan", *, warm_from: str | None, engine: str | None, dashboard: bool) -> None:
    opened = _open(request)
    if warm_from is not None:
        names = [part.strip() for part in warm_from.split(",") if part.strip()]
        print_warm_trials(err(), service.warm_start.enqueue_best(opened.store, opened.study, names))
    with service.search.dashboard_beside(opened.store) if dashboard else contextlib.nullcontext():
        _search(opened, plan, engine)


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _own_data(path: str | None, label: str | None) -> "OwnData | None":
    """Return the data that --data and --label name. Raises: UsageError."""
    if path is None:
        if label is not None:
            raise UsageError("--label: goes with --data, which is missing. Add it.")
        return None
    with as_option():
        return service.data.own_data(path, label)


def _open(request: "StudyRequest") -> "OpenedStudy":
    with download_bar(err()) as on_download:
        opened = service.create.open_study(request, on_download=on_download)
    print_opened(err(), opened)
    return opened


def _search(opened: "OpenedStudy", plan: "Plan", engine: str | None) -> None:
    """Run workers on a study until it is over or stopped, with a view of them; then print the leaderboard."""
    store, study = opened.store, opened.study
    with service.search.stop_on_signals() as stop:
        outcome = service.search.run_workers(
            store,
            study,
            devices=plan.devices,
            launcher=plan.launcher,
            engine=engine,
            observer=LiveView(store, study, err()),
            stop=stop,
        )
    board = service.studies.leaderboard(store, study.study_id)
    out().print(leaderboard_table(board))
    outcome.raise_for_failure()
    view = service.progress.read_progress(store, study).study
    err().print(f"\n{service.next_steps.next_commands(store, view)}")
    if view.over is None:
        raise typer.Exit(128 + stop.signal if outcome.stopped else 1)


def init(
    *,
    space: SpaceOption = None,
    study: StudyOption = None,
    recipe: RecipeOption = None,
    trials: TrialsOption = None,
    data: DataOption = None,
    label: LabelOption = None,
    storage: Storage = None,
    old_target: OldInitTarget = None,
) -> None:
    """Create a store (database file and tables); with --space, also create a study.

    Existing data is not changed.
    """
    at_least_one("--trials", trials)
    if space is None:
        if (study, recipe, trials) != (None, None, None):
            raise UsageError("init: --study, --recipe and --trials go with --space. Add it.")
        made = service.stores.create_store(storage)
        err().print(f"{made.url}: {'made' if made.created else 'was there'}")
        return
    limits, user_data = _given(trials=trials), _own_data(data, label)
    opened = _open(
        service.create.StudyRequest(
            space=space, study=study, recipe=recipe, limits=limits, storage=storage, data=user_data
        )
    )
    if not opened.created:
        err().print(f'study "{opened.study.name}" was there')
