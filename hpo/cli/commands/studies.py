"""`hpo studies`: the studies of a store looked at and changed."""

from typing import Annotated, Literal

import typer

from hpo import service
from hpo.cli.console import err, out, print_json, report
from hpo.cli.options import AsJson, Storage, StudyName, at_least_one, complete_space
from hpo.cli.render.as_json import study_json, summary_json
from hpo.cli.render.set_space import space_json, space_lines
from hpo.cli.render.studies import print_summary, study_table
from hpo.errors import UsageError

app = typer.Typer(help="List, show and manage studies.", no_args_is_help=True, add_completion=False)


@app.command("list")
def list_(*, storage: Storage = None, as_json: AsJson = False) -> None:
    """List the studies of a store."""
    store = service.stores.open_store(storage)
    studies = service.studies.list_studies(store)
    if as_json:
        print_json([study_json(study) for study in studies])
    elif studies:
        out().print(study_table(studies))
    else:
        name = service.stores.store_name(store)
        err().print(f"{name}: no study yet. Make one: hpo run --space ann_fashion")


@app.command()
def show(
    study: StudyName,
    *,
    top: Annotated[int, typer.Option(metavar="N", help="Number of best trials.")] = 10,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Show a study: progress, the best trials, the baseline, failures."""
    at_least_one("--top", top)
    summary = service.studies.show_study(service.stores.open_store(storage), study, top=top)
    if as_json:
        print_json(summary_json(summary))
    else:
        print_summary(out(), summary)


@app.command()
def delete(
    study: StudyName,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Delete a study, its trials and its files."""
    store = service.stores.open_store(storage)
    count = service.admin.count_trials(store, study)
    question = f"Delete study {study} with {count} trials from {service.stores.store_name(store)}?"
    if not yes and not typer.confirm(question, err=True):
        report("nothing was deleted", as_json=as_json, deleted=None)
        return
    deleted = service.admin.delete_study(store, study)
    if deleted.files_left is not None:
        err().print(f"its files are still in {deleted.files_left}")
    report(f"deleted study {study}", as_json=as_json, deleted=study, trials=deleted.trials)


@app.command()
def rename(
    study: StudyName,
    new_name: Annotated[str, typer.Argument(help="The new name.")],
    *,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Rename a study."""
    service.admin.rename_study(service.stores.open_store(storage), study, new_name)
    report(f"study {study} is now {new_name}", as_json=as_json, renamed=study, name=new_name)


@app.command()
def copy(
    study: StudyName,
    *,
    to: Annotated[str | None, typer.Option(metavar="URL", help="The store to copy to. [default: the same]")] = None,
    name: Annotated[str | None, typer.Option(help="The copy's name. [default: the same]")] = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Copy a study to another store (SQLite to Postgres, for example) or under another name; the copy is verified."""
    if to is None and name is None:
        raise UsageError("copy: --to URL or --name NAME is required, got neither.")
    source = service.stores.open_store(storage)
    target = service.stores.open_store(to, create=True) if to is not None else None
    made = service.admin.copy_study(source, study, target=target, new_name=name)
    if made.files_left is not None:
        err().print(f"its files are still only in {made.files_left}")
    text = f"copied study {study} to {made.store} as {made.copy}: all trials equal"
    report(text, as_json=as_json, copied=study, to=made.store, name=made.copy)


@app.command()
def retry(
    study: StudyName,
    *,
    kind: Annotated[
        Literal["error", "oom", "lost"] | None, typer.Option(help="Only what failed this way. [default: all]")
    ] = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Queue failed trials again, with the same configurations; the next `hpo run` trains them."""
    retried = service.admin.retry_trials(service.stores.open_store(storage), study, kind=kind)
    lines = [f"trial {one.trial} runs again as trial {one.new}" for one in retried]
    again = f"To run them: hpo run --study {study}" if retried else "nothing to run again"
    lines.append(f"{len(retried)} failed trial(s); {again}")
    listed = [{"trial": one.trial, "as": one.new} for one in retried]
    report("\n".join(lines), as_json=as_json, study=study, retried=listed)


@app.command("set-space")
def set_space(
    study: StudyName,
    space: Annotated[
        str, typer.Argument(help="A name of `hpo spaces list`, or a path.", autocompletion=complete_space)
    ],
    *,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Change the search space of a study: wider or narrower ranges, more or fewer choices, fixed parameters.

    Trials that fit the new space still guide the sampler; the others are kept and shown, but do not guide it.
    """
    result = service.admin.set_space(service.stores.open_store(storage), study, space)
    if as_json:
        print_json({"study": study, "space": space, **space_json(result)})
        return
    for line in space_lines(result):
        out().print(line)
    err().print(f"To continue: hpo run --study {study}")
