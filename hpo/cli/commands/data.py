"""`hpo data`: which data sets there are, and bringing them here."""

from typing import Annotated

import typer

from hpo import service
from hpo.cli.console import err, out, print_json
from hpo.cli.options import AsJson, complete_data
from hpo.cli.render.lists import data_json, data_table
from hpo.cli.render.progress import download_bar

app = typer.Typer(help="List and download data sets.", no_args_is_help=True, add_completion=False)


@app.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List the known data sets and whether they are downloaded."""
    rows = service.data.list_data()
    if as_json:
        print_json(data_json(rows))
    else:
        out().print(data_table(rows))


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A data set of `hpo data list`.", autocompletion=complete_data)],
) -> None:
    """Download a data set to the cache and verify it; replaces damaged files."""
    with download_bar(err()) as on_download:
        fetched = service.data.fetch_data(name, on_download=on_download)
    err().print(f"{name}: ready (from {fetched.source}) in {fetched.folder}")
