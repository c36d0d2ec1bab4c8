"""`hpo data`: data sets."""

from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.options import AsJson, complete_data, out, print_json, talk

if TYPE_CHECKING:
    from hpo.config import OwnData

app = typer.Typer(help="Data sets: what is known, what is here.", no_args_is_help=True)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the known data sets and whether they are here."""
    from rich.table import Table

    from hpo import data

    sets = [data.info(name) for name in data.known()]
    states = {d.name: data.state(d) for d in sets}
    if as_json:
        rows = [
            {
                "name": d.name,
                "title": d.title,
                "input_shape": d.input_shape,
                "classes": d.classes,
                "training_rows": d.rows[0],
                "test_rows": d.rows[1],
                "state": states[d.name],
            }
            for d in sets
        ]
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", "rows", "input", "classes", "here", "what"):
        table.add_column(column, justify="right" if column in ("rows", "classes") else "left")
    for d in sets:
        shape = "x".join(map(str, d.input_shape))
        table.add_row(d.name, f"{sum(d.rows):,}", shape, str(len(d.classes)), states[d.name], d.title)
    out().print(table)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A data set of `hpo data list`.", autocompletion=complete_data)],
) -> None:
    """Bring a data set into the cache, verified; replaces damaged files."""
    from hpo import data

    source = fetch_with_progress(name)
    talk().print(f"{name}: ready (from {source}) in {data.cache_folder() / name}")


def fetch_with_progress(name: "str | OwnData | None") -> str:
    """Fetch a data set, showing how much has come; return its source."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from hpo import data

    info = data.info(name)
    if data.state(info) == "ready":
        return data.fetch(info)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=talk(), transient=True) as progress:
        task = progress.add_task(info.name, total=None)

        def report(source: str, size: int) -> None:
            progress.update(task, description=f"{info.name} from {source}", completed=size)

        return data.fetch(info, report)
