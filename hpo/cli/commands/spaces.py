"""`hpo spaces` and `hpo recipes`: the documents that say where and how to look."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from hpo import service
from hpo.cli.console import err, out, print_json, print_text
from hpo.cli.options import AsJson, complete_space
from hpo.cli.render.lists import document_table

if TYPE_CHECKING:
    from hpo.service.spaces import Kind

app = typer.Typer(help="Search spaces: what is searched.", no_args_is_help=True, add_completion=False)
recipes = typer.Typer(help="Study recipes: how the search is run.", no_args_is_help=True, add_completion=False)

Name = Annotated[str, typer.Argument(help="A name of the list, or a path ending in .toml.")]


def _list(kind: "Kind", *, as_json: bool) -> None:
    documents = service.spaces.list_documents(kind)
    if as_json:
        print_json([dataclasses.asdict(document) for document in documents])
    else:
        out().print(document_table(documents))


def _show(kind: "Kind", name: str) -> None:
    document = service.spaces.show_document(kind, name)
    err().print(f"# {document.path}", style="dim")
    print_text(document.text)


@app.command("list")
def list_spaces(*, as_json: AsJson = False) -> None:
    """List the search spaces that are available by name."""
    _list("space", as_json=as_json)


@app.command("show")
def show_space(name: Name) -> None:
    """Print a search space."""
    _show("space", name)


@app.command("new")
def new_space(
    name: Annotated[str, typer.Argument(help="Its name; the file is NAME.toml in ./search_spaces.")],
    *,
    source: Annotated[str, typer.Option("--from", help="The space to copy.", autocompletion=complete_space)],
) -> None:
    """Copy a space into ./search_spaces, for editing."""
    path = service.spaces.copy_space(name, source)
    err().print(f"{path}: a copy of {source}. Edit it, then: hpo spaces check {name}")


@app.command("diff")
def diff_spaces(
    one: Annotated[str, typer.Argument(help="A name of the list, or a path ending in .toml.")],
    other: Annotated[str, typer.Argument(help="Another.")],
) -> None:
    """Show in which fields two spaces differ."""
    lines = service.spaces.compare_spaces(one, other)
    for line in lines:
        print_text(f"{line}\n")
    if not lines:
        err().print("they are the same search")


@app.command("check")
def check_space(name: Name) -> None:
    """Check a search space: every field, its baselines, its data set, and that its networks fit the inputs."""
    checked = service.spaces.check_space(name)
    if checked.grid_size is None:
        size = f"No grid: {checked.no_grid}."
    else:
        size = f"As a grid: {checked.grid_size:,} configurations."
    err().print(f"{name}: ok. For example: {checked.example}\n{size}")


@recipes.command("list")
def list_recipes(*, as_json: AsJson = False) -> None:
    """List the study recipes that are available by name."""
    _list("recipe", as_json=as_json)


@recipes.command("show")
def show_recipe(name: Name) -> None:
    """Print a study recipe."""
    _show("recipe", name)
