"""Commands that a study suggests next."""

from dataclasses import dataclass

from hpo.store.database.connect import Store
from hpo.store.database.url import DEFAULT, parse, shown
from hpo.store.record import State
from hpo.store.views import StudyView


@dataclass(frozen=True)
class NextSteps:
    """How far a study has come, and the commands for what comes next."""

    state: str
    """Why the study is over, or how far it came."""
    more: str
    """Command that searches further."""
    confirm: str
    export: str
    train: str
    show: str
    logs: str


def storage_option(store: Store) -> str:
    """Return the --storage option by which a command finds this store again; empty for the default store."""
    return "" if store.url == parse(DEFAULT) else f" --storage '{shown(store.url)}'"


def next_steps(store: Store, study: StudyView) -> NextSteps:
    """Return the commands that a study suggests next."""
    storage, python = storage_option(store), _python_option(study)
    more = f"hpo run --study {study.name}"
    if study.over is not None:
        state = f"is over: {study.over.reason}"
        more = f"{more} {study.over.extension}".rstrip()
    else:
        total = study.budget.trials if study.budget is not None else study.finished
        state = f"is stopped: {study.finished} of {total} trials done, {total - study.finished} left"
    return NextSteps(
        state=state,
        more=f"{more}{storage}{python}",
        confirm=f"hpo confirm {study.name}{storage}{python}",
        export=f"hpo export {study.name} -o best.toml{storage}",
        train=f"hpo train best.toml -o best{python}",
        show=f"hpo studies show {study.name}{storage}",
        logs=f"hpo logs {study.name}{storage}",
    )


def next_commands(store: Store, study: StudyView) -> str:
    """Return what a study suggests next as a text of several lines: to keep the winner, or to see why there is none."""
    steps = next_steps(store, study)
    first = f"study {study.name} {steps.state}. For more: {steps.more}"
    if study.best_value is not None:
        return f"{first}\nTo keep the winner:\n  {steps.confirm}\n  {steps.export}\n  {steps.train}"
    if study.counts[State.FAIL]:
        return f"{first}\nTo see why no trial was completed:\n  {steps.show}\n  {steps.logs}"
    return first


def _python_option(study: StudyView) -> str:
    """Return the --python option that a command needs to run a study's code of the user's own."""
    space = study.attributes.space or {}
    reference = space.get("python") or (space.get("model") or {}).get("python")
    return f" --python {reference.rpartition(':')[0]}" if reference else ""
