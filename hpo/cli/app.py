"""The Typer application: all commands by name."""

from typing import Annotated, ClassVar

import typer

from hpo import __version__
from hpo.cli.lazy import LazyCommand, LazyGroup


class Commands(LazyGroup):
    """The commands of `hpo`, in the order of the help."""

    table: ClassVar[dict[str, LazyCommand]] = {
        name: LazyCommand(f"hpo.cli.commands.{place}", summary)
        for name, place, summary in (
            ("run", "run:run", "Search a space. Stop with Ctrl-C; run the same command to resume."),
            (
                "init",
                "run:init",
                "Create a store (database file and tables); with --space, also create a study.",
            ),
            (
                "watch",
                "watch:watch",
                "Watch a running study, from any terminal; read-only. Press Ctrl-C to quit.",
            ),
            (
                "worker",
                "worker:worker",
                "Start a worker for a study; there can be many, on any machine that reaches the store.",
            ),
            (
                "logs",
                "logs:logs",
                "Print what the workers of a study have written, wherever they ran.",
            ),
            ("dashboard", "dashboard:dashboard", "Show the studies of a store in optuna-dashboard."),
            (
                "confirm",
                "confirm:confirm",
                "Train the best configurations and the baseline again on fresh seeds and rows, and report whether "
                "there is a winner.",
            ),
            (
                "audit",
                "audit:audit",
                "Train some pruned trials to the end, and report what pruning may have missed.",
            ),
            (
                "export",
                "export:export",
                "Write the winning configuration and its origin: the confirmed winner, else the best trial by the "
                "metric.",
            ),
            (
                "train",
                "train:train",
                "Train a configuration from its file alone, then test it once on the test split.",
            ),
            (
                "report",
                "report:report",
                "Write a study as one HTML page that works offline; with a second one, both side by side.",
            ),
            (
                "predict",
                "models:predict",
                "Predict the class of each row of files, with its probability.",
            ),
            (
                "export-model",
                "models:export_model",
                "Convert a trained network, preprocessing included, to ONNX, TorchScript or pt2; check that "
                "outputs agree.",
            ),
            ("studies", "studies:app", "List, show and manage studies."),
            ("trials", "trials:app", "Single trials of a study."),
            ("spaces", "spaces:app", "Search spaces: what is searched."),
            ("recipes", "spaces:recipes", "Study recipes: how the search is run."),
            ("data", "data:app", "List and download data sets."),
            (
                "doctor",
                "doctor:app",
                "Check machine and setup; `store` finds and mends damage, `resume` proves that training resumes.",
            ),
        )
    }


app = typer.Typer(
    name="hpo",
    cls=Commands,
    help="Search hyperparameters of PyTorch classifiers. Studies are saved; stop and resume at any time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(*, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def command_tree() -> Commands:
    """Return the whole application with all its commands imported."""
    group = typer.main.get_command(app)
    assert isinstance(group, Commands)
    group.load_all()
    return group
