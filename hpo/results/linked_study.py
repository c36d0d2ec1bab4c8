"""Studies that train trials of another study again: a confirmation, an audit. They draw nothing themselves."""

import json
import shlex
from dataclasses import dataclass

import sqlalchemy as sa

from hpo.constraints import Constraints
from hpo.errors import StudyError
from hpo.recipe import Budget, Fidelity, Pruner, Sampler
from hpo.store import queries, studies
from hpo.store.attributes import Attribute
from hpo.store.database import schema
from hpo.store.database.connect import Store
from hpo.store.database.study_rows import load_attributes
from hpo.store.record import Repeat, StudyAttributes, TrialAttributes
from hpo.store.studies import StudyRecord
from hpo.store.views import TrialView


@dataclass(frozen=True)
class Link:
    """A kind of linked study."""

    suffix: str
    """What is added to the other study's name."""
    attribute: Attribute[str]
    """Where it keeps the other study's uid."""
    title: str
    full: bool
    """Whether everything is trained on; else at the fidelity of the search."""


CONFIRMATION = Link("-confirm", StudyAttributes.confirms, "Fresh trainings of the best of", full=True)
AUDIT = Link("-audit", StudyAttributes.audits, "Pruned trials, trained to the end, of", full=False)


def refuse_linked(store: Store, study: StudyRecord) -> None:
    """Refuse a study that is linked to another itself. Raises: StudyError."""
    with store.read() as connection:
        if load_attributes(connection, study.study_id).is_linked:
            raise StudyError(f'Study "{study.name}" trains trials of another study again. Name that study.')


def make(store: Store, study: StudyRecord, link: Link, trials: int) -> StudyRecord:
    """Return the study that is linked to another in this way; made with a budget of `trials` if there is none.

    Raises: StudyError if a study that has nothing to do with it has the name.
    """
    name = study.name + link.suffix
    with store.read() as connection:
        exists = name in studies.names(connection)
    if not exists:
        changes = {
            "title": f"{link.title} {study.name}",
            "objective": study.metric,
            "sampler": Sampler(name="random"),
            "pruner": Pruner(name="none"),
            "budget": Budget(trials=trials, only_waiting=True),
        }
        recipe = study.recipe.model_copy(update=changes | ({"fidelity": Fidelity()} if link.full else {}))
        space = study.space.model_copy(update={"baselines": [], "constraints": Constraints()})
        studies.create(store, name, study.space_name, space, recipe, study.fingerprint, link.attribute.entry(study.uid))
    linked = find(store, study, link)
    if linked is None or linked.name != name:
        raise StudyError(f'There is another study "{name}". Rename it: hpo studies rename {shlex.quote(name)} NEW_NAME')
    return linked


def find(store: Store, study: StudyRecord, link: Link) -> StudyRecord | None:
    """Return the study that is linked to another in this way, if there is one."""
    table = schema.study_user_attributes
    query = (
        sa.select(schema.studies.c.study_name)
        .join_from(table, schema.studies, table.c.study_id == schema.studies.c.study_id)
        .where(table.c.key == link.attribute.key, table.c.value_json == json.dumps(study.uid))
    )
    with store.read() as connection:
        name = connection.execute(query).scalar()
    return None if name is None else studies.load_study(store, name)


def trainings(store: Store, linked: StudyRecord) -> list[tuple[Repeat, TrialView]]:
    """Return what a linked study trains again, and the trial that ran it.

    Left out are those that were continued or repeated under another number.
    """
    with store.read() as connection:
        trials = queries.trials_with(connection, linked.study_id, TrialAttributes.confirms)
    repeats = [(trial.attributes.confirms, trial) for trial in trials if trial.attributes.excused is None]
    return [(repeat, trial) for repeat, trial in repeats if repeat is not None]
