"""`hpo trials`: single trials looked at and voided."""

from typing import Annotated

import typer

from hpo import service
from hpo.cli.console import out, print_json, report
from hpo.cli.options import AsJson, Storage, StudyName
from hpo.cli.render.as_json import trial_json
from hpo.cli.render.studies import print_trial

app = typer.Typer(help="Single trials of a study.", no_args_is_help=True, add_completion=False)

Number = Annotated[int, typer.Argument(help="The trial's number.")]


@app.command()
def show(study: StudyName, number: Number, *, storage: Storage = None, as_json: AsJson = False) -> None:
    """Show a trial: its configuration, its curve and how it ended."""
    details = service.studies.show_trial(service.stores.open_store(storage), study, number)
    if as_json:
        print_json(trial_json(details.trial))
    else:
        print_trial(out(), study, details)


@app.command()
def void(
    study: StudyName,
    number: Number,
    *,
    why: Annotated[str, typer.Option(help="The reason; it is kept with the trial.")],
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Hide a bad trial from the sampler; its record is kept, and another trial replaces it."""
    service.admin.void_trial(service.stores.open_store(storage), study, number, why=why)
    report(f"trial {number} of {study} is void: {why}", as_json=as_json, study=study, void=number, why=why)
