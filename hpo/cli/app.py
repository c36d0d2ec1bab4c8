"""The Typer application: all commands by name."""

import typer

from hpo.cli import confirm, dashboard, data, doctor, manage, predict, report, run, spaces, studies, train, workers

app = typer.Typer(
    name="hpo",
    help="Search hyperparameters of PyTorch classifiers. Studies persist; stop and run again at any time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and end.")) -> None:
    if version:
        import hpo

        print(hpo.__version__)
        raise typer.Exit


app.command("run")(run.run)
app.command("init")(run.init)
app.command("watch")(workers.watch)
app.command("worker")(workers.worker)
app.command("dashboard")(dashboard.dashboard)
app.command("confirm")(confirm.confirm)
app.command("export")(train.export)
app.command("train")(train.train)
app.command("report")(report.report)
app.command("predict")(predict.predict)
app.command("export-model")(predict.export_model)
for command in (manage.delete, manage.rename, manage.copy, manage.retry, manage.set_space):
    studies.app.command(command.__name__.replace("_", "-"))(command)
app.add_typer(studies.app, name="studies")
app.add_typer(manage.trials, name="trials")
app.add_typer(spaces.app, name="spaces")
app.add_typer(spaces.recipes, name="recipes")
app.add_typer(data.app, name="data")
app.add_typer(doctor.app, name="doctor")
