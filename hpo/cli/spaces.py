"""`hpo spaces` and `hpo recipes`: the documents that say where and how to look."""

from pathlib import Path
from typing import Annotated

import typer

from hpo import documents
from hpo.cli.options import AsJson, complete_space, out, print_json, talk

app = typer.Typer(help="Search spaces: where to look.", no_args_is_help=True)
recipes = typer.Typer(help="Study recipes: how to look.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A name of the list, or a path ending in .toml.")]


def _list(kind: documents.Kind, as_json: bool) -> None:
    from rich.table import Table

    found = {name: documents.read(path) for name, path in documents.known(kind).items()}
    rows = [
        {"name": name, "title": document.content.get("title", ""), "path": document.where}
        for name, document in sorted(found.items())
    ]
    if as_json:
        print_json(rows)
        return
    table = Table("name", "what", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row["name"], str(row["title"]))
    out().print(table)


def _show(kind: documents.Kind, name: str) -> None:
    where = documents.find(kind, name).where
    talk().print(f"[dim]# {where}[/dim]")
    print(Path(where).read_text(encoding="utf-8"), end="")


@app.command("list")
def list_spaces(as_json: AsJson = False) -> None:
    """List the search spaces that can be named."""
    _list("space", as_json)


@app.command("show")
def show_space(name: Name) -> None:
    """Print a search space."""
    _show("space", name)


@app.command("new")
def new_space(
    name: Annotated[str, typer.Argument(help="Its name; the file is NAME.toml in ./search_spaces.")],
    source: Annotated[str, typer.Option("--from", help="The space to copy.", autocompletion=complete_space)],
) -> None:
    """Copy a space into ./search_spaces, to be edited."""
    from hpo.errors import HpoError, UsageError

    where = Path(documents.find("space", source).where)
    path = Path("search_spaces") / f"{name.removesuffix('.toml')}.toml"
    if path.exists():
        raise UsageError(f"{path}: is there already. Choose another name.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(where.read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise HpoError(f"{path}: cannot be written: {error.strerror}. Change to a folder of your own.") from error
    talk().print(f"{path}: a copy of {source}. Edit it, then: hpo spaces check {name}")


@app.command("diff")
def diff_spaces(
    one: Annotated[str, typer.Argument(help="A name of the list, or a path ending in .toml.")],
    other: Annotated[str, typer.Argument(help="Another.")],
) -> None:
    """Show in which fields two spaces differ."""
    from hpo import space

    places = (f"in {one}", f"in {other}")
    lines = documents.differences("space", space.load_space(one).identity(), space.load_space(other).identity(), places)
    for line in lines:
        print(line.removeprefix("space."))
    if not lines:
        talk().print("they are the same search")


@app.command("check")
def check_space(name: Name) -> None:
    """Check a search space: every field, its baselines, its data set, and that its networks fit the inputs."""
    from hpo import data, space
    from hpo.errors import UsageError
    from hpo.grid import grid
    from hpo.suggesters import RandomSuggester

    found = space.load_space(name, trust_code=True)
    if found.data is not None:
        found.check_inputs(data.info(found.data).input_shape, name)
    example = found.draw(RandomSuggester(seed=0), seed=0)
    try:
        size = f"As a grid: {len(grid(found)):,} configurations."
    except UsageError as error:
        size = f"No grid: {str(error).removeprefix('sampler.name: grid ').partition('. ')[0]}."
    talk().print(f"{name}: ok. For example: {example.summary()}\n{size}")


@recipes.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """List the study recipes that can be named."""
    _list("recipe", as_json)


@recipes.command("show")
def show_recipe(name: Name) -> None:
    """Print a study recipe."""
    _show("recipe", name)
