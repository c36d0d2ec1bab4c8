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
            ("run", "run:run", "Search a space. Stop with Ctrl-C; the same command goes on where it was."),
            (
                "init",
                "run:init",
                "Make a store: the file, if it is SQLite, and the tables; with --space also a study for workers to "
                "join.",
            ),
            (
                "watch",
                "watch:watch",
                "Look on while a study is worked on, from any terminal; changes nothing. Ctrl-C ends.",
            ),
            ("worker", "worker:worker", "Join a study from this terminal or machine; many may."),
            ("dashboard", "dashboard:dashboard", "Show the studies of a store in optuna-dashboard."),
            (
                "confirm",
                "confirm:confirm",
                "Train the best configurations and the baseline again on fresh seeds, and say whether there is a "
                "winner.",
            ),
            (
                "export",
                "export:export",
                "Write a study's winner, complete, with its provenance: the confirmed one, else the best trial by the "
                "metric.",
            ),
            (
                "train",
                "train:train",
                "Train a configuration from its file alone; then read the test split, once, and say how good it is.",
            ),
            ("report", "report:report", "Write a study as one web page that needs no network."),
            (
                "predict",
                "models:predict",
                "Say what a trained network makes of files: the class of each row and how sure it is.",
            ),
            (
                "export-model",
                "models:export_model",
                "Write a trained network, preprocessing included, in another program's format; check that it agrees.",
            ),
            ("studies", "studies:app", "Studies: what is there, what they found."),
            ("trials", "trials:app", "Single trials of a study."),
            ("spaces", "spaces:app", "Search spaces: where to look."),
            ("recipes", "spaces:recipes", "Study recipes: how to look."),
            ("data", "data:app", "Data sets: what is known, what is here."),
            ("doctor", "doctor:app", "What a helpful colleague checks first; with `resume`, a proof."),
        )
    }


app = typer.Typer(
    name="hpo",
    cls=Commands,
    help="Search hyperparameters of PyTorch classifiers. Studies persist; stop and run again at any time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(*, version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def command_tree() -> Commands:
    """Return the whole application with all its commands imported."""
    group = typer.main.get_command(app)
    assert isinstance(group, Commands)
    group.load_all()
    return group
