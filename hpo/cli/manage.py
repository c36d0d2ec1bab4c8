"""`hpo studies delete|rename|copy|retry|set-space` and `hpo trials`: changing what a store holds."""

import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hpo.cli.options import AsJson, Storage, StudyName, complete_space, out, print_json, talk
from hpo.errors import HpoError, UsageError

trials = typer.Typer(help="Single trials of a study.", no_args_is_help=True)

Number = Annotated[int, typer.Argument(help="The trial's number.")]


SAID = 10
"""So many hidden trials are listed with their reasons."""


def _done(as_json: bool, text: str, **facts: Any) -> None:
    """Say what was done, to people or to programs."""
    if as_json:
        print_json(facts)
    else:
        talk().print(text)


Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def delete(study: StudyName, yes: Yes = False, storage: Storage = None, as_json: AsJson = False) -> None:
    """Delete a study, its trials and its files."""
    from hpo.artifacts import configured_root, dashboard_folder
    from hpo.store import admin, queries
    from hpo.store.database.connect import open_store
    from hpo.store.database.url import configured, shown
    from hpo.store.studies import id_of

    store = open_store(configured(storage))
    with store.read() as connection:
        view = queries.study(connection, id_of(connection, store, study))
    if not yes:
        question = f"Delete study {study} with {sum(view.counts.values())} trials from {shown(store.url)}?"
        if not typer.confirm(question, err=True):
            _done(as_json, "nothing was deleted", deleted=None)
            return
    uid = admin.delete(store, study)
    root = configured_root(store.url)
    if uid is not None and "://" not in root:
        shutil.rmtree(Path(root) / uid, ignore_errors=True)
        for picture in dashboard_folder(store.url).glob(f"{uid}-*"):
            picture.unlink(missing_ok=True)
    elif uid is not None:
        talk().print(f"its files are still in {root.rstrip('/')}/{uid}/")
    _done(as_json, f"deleted study {study}", deleted=study, trials=sum(view.counts.values()))


def rename(
    study: StudyName,
    new_name: Annotated[str, typer.Argument(help="The new name.")],
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Give a study another name."""
    from hpo.store import admin
    from hpo.store.database.connect import open_store
    from hpo.store.database.url import configured

    admin.rename(open_store(configured(storage)), study, new_name)
    _done(as_json, f"study {study} is now {new_name}", renamed=study, name=new_name)


def copy(
    study: StudyName,
    to: Annotated[str | None, typer.Option(metavar="URL", help="The store to copy to. [default: the same]")] = None,
    name: Annotated[str | None, typer.Option(help="The copy's name. [default: the same]")] = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Copy a study to another store, as SQLite to Postgres, or under another name; counts and values are compared."""
    from hpo.artifacts import configured_root, dashboard_folder
    from hpo.store import admin
    from hpo.store.database.connect import open_store
    from hpo.store.database.url import configured, shown

    if to is None and name is None:
        raise UsageError("copy: --to URL or --name NAME is required, got neither.")
    source = open_store(configured(storage))
    target = open_store(configured(to), create=True) if to is not None else source
    old_uid, uid = admin.copy(source, study, target, name or study)
    roots = [configured_root(store.url) for store in (source, target)]
    folder = Path(roots[0]) / (old_uid or "")
    if old_uid is not None and not any("://" in root for root in roots) and folder.is_dir():
        try:
            shutil.copytree(folder, Path(roots[1]) / uid)
        except OSError as error:
            raise HpoError(f"{roots[1]}: the study was copied, its files could not be: {error}.") from error
    pictures = [dashboard_folder(store.url) for store in (source, target)]
    if pictures[0] != pictures[1] and pictures[0].is_dir():
        pictures[1].mkdir(parents=True, exist_ok=True)
        for picture in pictures[0].glob(f"{old_uid}-*"):
            shutil.copy2(picture, pictures[1] / picture.name)
    where, new = shown(target.url), name or study
    _done(as_json, f"copied study {study} to {where} as {new}: all trials equal", copied=study, to=where, name=new)


def set_space(
    study: StudyName,
    space: Annotated[
        str, typer.Argument(help="A name of `hpo spaces list`, or a path.", autocompletion=complete_space)
    ],
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Give a study in progress another space: wider or narrower ranges, more or fewer choices, fixed parameters.

    Trials that the new space can draw stay as the sampler's history; the others are kept and shown, but hidden from it.
    """
    from hpo import data
    from hpo.cli.prepare import check_baselines
    from hpo.space import load_space
    from hpo.store.change_space import change_space as give
    from hpo.store.database.connect import open_store
    from hpo.store.database.url import configured

    found = load_space(space, trust_code=True)
    if found.data is not None:
        found.check_inputs(data.info(found.data).input_shape, space)
        check_baselines(found, space)
    result = give(open_store(configured(storage)), study, space.removesuffix(".toml").rpartition("/")[2], found)
    lines = [
        f"{len(result.kept)} finished trial(s) fit and stay as history, {len(result.hidden)} do not and are hidden"
    ]
    lines += [f"  trial {number}: {why}" for number, why in list(result.hidden.items())[:SAID]]
    lines += [f"  and {len(result.hidden) - SAID} more"] if len(result.hidden) > SAID else []
    if result.waiting:
        lines.append(f"{len(result.waiting)} waiting trial(s) fit and are run")
    lines += [f"dropped trial {n}, {what}: {why}" for n, (what, why) in result.dropped.items()]
    lines += [f"to be tried: baseline {name}" for name in result.added]
    if as_json:
        dropped = [{"trial": n, "what": what, "why": why} for n, (what, why) in result.dropped.items()]
        hidden = [{"trial": n, "why": why} for n, why in result.hidden.items()]
        facts = {"kept": result.kept, "hidden": hidden, "waiting": result.waiting}
        print_json({"study": study, "space": space, **facts, "dropped": dropped, "added": result.added})
        return
    for line in lines:
        out().print(line, markup=False)
    talk().print(f"To go on: hpo run --study {study}")


def retry(
    study: StudyName,
    kind: Annotated[
        Literal["error", "oom", "lost"] | None, typer.Option(help="Only what failed this way. [default: all]")
    ] = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Have a study's failed trials run again, the same configurations, with the next `hpo run`."""
    from hpo.store import admin
    from hpo.store.database.connect import open_store
    from hpo.store.database.url import configured

    retried = admin.retry(open_store(configured(storage)), study, kind)
    lines = [f"trial {old} runs again as trial {new}" for old, new in retried]
    again = f"To run them: hpo run --study {study}" if retried else "nothing to run again"
    lines.append(f"{len(retried)} failed trial(s); {again}")
    _done(as_json, "\n".join(lines), study=study, retried=[{"trial": old, "as": new} for old, new in retried])


@trials.command()
def show(study: StudyName, number: Number, storage: Storage = None, as_json: AsJson = False) -> None:
    """Show a trial: its configuration, its curve and how it ended."""
    from hpo.cli.tables import configuration, trial_json
    from hpo.cli.view import sparkline
    from hpo.errors import StudyError
    from hpo.store import queries
    from hpo.store.database.connect import open_store
    from hpo.store.database.study_rows import load_attributes
    from hpo.store.database.url import configured
    from hpo.store.record import TrialAttributes
    from hpo.store.studies import id_of

    store = open_store(configured(storage))
    with store.read() as connection:
        trial_id = queries.trial_id_of(connection, id_of(connection, store, study), number)
        if trial_id is None:
            raise StudyError(f'Study "{study}" has no trial {number}. `hpo studies show {study}` lists the best.')
        trial = queries.trial(connection, trial_id)
        metric = load_attributes(connection, id_of(connection, store, study)).metric_label
    if as_json:
        print_json(trial_json(trial))
        return
    console = out()
    value = "" if trial.value is None else f" {trial.value:.4f}"
    state = "infeasible" if trial.attributes.infeasible is not None else trial.state.lower()
    console.print(f"trial {number} of {study}: {state}{value}")
    console.print(configuration(trial))
    if trial.outside is not None:
        console.print(f"outside the study's space, hidden from the sampler: {trial.outside}", markup=False)
    if trial.curve:
        console.print(f"{metric} by epoch: {sparkline(list(trial.curve.values()))}")
    hidden = [each.key for each in (TrialAttributes.config, TrialAttributes.curves, TrialAttributes.excused)]
    for key, entry in trial.attributes.user.items():
        if key not in hidden:
            text = f"{entry['kind']}: {entry['message']}" if key == TrialAttributes.failure.key else entry
            console.print(f"  {key}: {text}", markup=False)


@trials.command()
def void(
    study: StudyName,
    number: Number,
    why: Annotated[str, typer.Option(help="The reason; it is kept with the trial.")],
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Take a bad trial out of the sampler's sight; its record stays, another runs in its place."""
    from hpo.store import admin
    from hpo.store.database.connect import open_store
    from hpo.store.database.url import configured

    admin.void(open_store(configured(storage)), study, number, why)
    _done(as_json, f"trial {number} of {study} is void: {why}", study=study, void=number, why=why)
