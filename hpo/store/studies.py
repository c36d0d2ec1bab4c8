"""Studies in a store: created as a whole, found by name, and resumed only with the space and recipe they have."""

import dataclasses
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from hpo import __version__, documents
from hpo.artifacts import check_uid
from hpo.config import Metric, TrialConfig, metric_label
from hpo.constraints import COST_NAMES
from hpo.errors import StudyError, UsageError, suggestion
from hpo.recipe import Budget, StudyRecipe
from hpo.space import Baseline, SearchSpace
from hpo.store.attributes import Entry
from hpo.store.database import schema
from hpo.store.database.conditions import count, is_of
from hpo.store.database.connect import Store
from hpo.store.database.study_rows import load_attributes, write_attributes
from hpo.store.database.trial_rows import Changes, fresh_id, insert_trial, write
from hpo.store.database.url import shown
from hpo.store.leases import second_chances
from hpo.store.record import FINISHED, State, StudyAttributes, TrialAttributes

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


def check_name(name: str) -> str:
    """Return a study's name if it can be one. Raises: UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(f'study: must consist of letters, digits, "_" and "-", got "{name}". Choose another --study.')
    return name


@dataclass(frozen=True)
class StudyRecord:
    """A study: everything that its trials depend on."""

    study_id: int
    uid: str
    """Identifies the study for good: its name can change, and SQLite reuses ids of deleted studies."""
    name: str
    space_name: str
    space: SearchSpace
    recipe: StudyRecipe
    fingerprint: str
    """SHA-256 of the data."""

    @property
    def effective_space(self) -> SearchSpace:
        """The space that is searched: with the recipe's epochs, metric and fidelity, if it sets them."""
        return self.recipe.applied_to(self.space)

    def full(self, config: TrialConfig) -> TrialConfig:
        """Return a trial's config at the space's own fidelity: the one that is confirmed, exported and trained."""
        return dataclasses.replace(
            config, **{name: getattr(self.space, name) for name in self.recipe.fidelity.fields()}
        )

    @property
    def metric(self) -> Metric:
        """The metric that is maximized."""
        return self.effective_space.metric

    def with_space(self, space: SearchSpace) -> "StudyRecord":
        """Return the study as it would be with another space."""
        return replace(self, space=space)


def names(connection: Connection) -> list[str]:
    """Return the names of all studies of a store."""
    return list(
        connection.execute(sa.select(schema.studies.c.study_name).order_by(schema.studies.c.study_id)).scalars()
    )


def create(
    store: Store,
    name: str,
    space_name: str,
    space: SearchSpace,
    recipe: StudyRecipe,
    fingerprint: str,
    *entries: Entry,
) -> bool:
    """Create a study, its baselines waiting to be tried first; return False if there is one of this name.

    `entries` are further attributes of the study.
    """
    check_name(name)
    try:
        with store.write() as connection:
            study_id = insert_study(store, connection, name, two_objectives=recipe.cost is not None)
            labels = [metric_label(recipe.metric or space.metric)]
            labels += [COST_NAMES[recipe.cost]] if recipe.cost is not None else []
            write_attributes(
                connection,
                study_id,
                StudyAttributes.space_name.entry(space_name),
                StudyAttributes.space.entry(documents.dump(space)),
                StudyAttributes.recipe.entry(documents.dump(recipe)),
                StudyAttributes.data_fingerprint.entry(fingerprint),
                StudyAttributes.hpo_version.entry(__version__),
                StudyAttributes.metric_names.entry(labels),
                *entries,
            )
            budget = json.dumps(documents.dump(recipe.budget))
            connection.execute(
                sa.insert(schema.hpo_studies),
                {"study_id": study_id, "uid": uuid.uuid4().hex, "budget_json": budget, "active_seconds": 0.0},
            )
            for baseline in space.baselines:
                add_baseline(store, connection, study_id, baseline)
    except IntegrityError:
        return False
    return True


def add_baseline(store: Store, connection: Connection, study_id: int, baseline: Baseline) -> None:
    """Enqueue a baseline, within a transaction."""
    _enqueue(store, connection, study_id, baseline.values(), TrialAttributes.baseline.entry(baseline.name))


def enqueue(store: Store, study: StudyRecord, trials: list[tuple[dict[str, Any], Entry]]) -> None:
    """Enqueue trials with given draws: pairs of draws and an attribute that names their origin."""
    with store.write() as connection:
        store.lock_study(connection, study.study_id)
        for draws, origin in trials:
            _enqueue(store, connection, study.study_id, draws, origin)


def _enqueue(store: Store, connection: Connection, study_id: int, draws: dict[str, Any], origin: Entry) -> None:
    trial_id, _ = insert_trial(store, connection, study_id, State.WAITING)
    changes = Changes()
    changes.note(trial_id, origin, TrialAttributes.fixed_params.entry(draws))
    write(store, connection, changes)


def insert_study(store: Store, connection: Connection, name: str, *, two_objectives: bool = False) -> int:
    """Add an empty study that maximizes one value, and minimizes another if there are two; return its id.

    Raises: IntegrityError if the name is taken.
    """
    values: dict[str, Any] = {"study_name": name}
    if store.is_sqlite:
        values["study_id"] = fresh_id(connection, schema.studies.c.study_id, schema.hpo_schema.c.last_study_id)
    insert = sa.insert(schema.studies).values(**values).returning(schema.studies.c.study_id)
    study_id = int(connection.execute(insert).scalar_one())
    directions = ["MAXIMIZE", "MINIMIZE"][: 2 if two_objectives else 1]
    rows = [{"study_id": study_id, "direction": each, "objective": i} for i, each in enumerate(directions)]
    connection.execute(sa.insert(schema.study_directions), rows)
    for table in (schema.hpo_studies, schema.hpo_workers, schema.hpo_leases):
        # Rows of a study that another tool deleted and whose id is used again.
        connection.execute(sa.delete(table).where(table.c.study_id == study_id))
    return study_id


def id_of(connection: Connection, store: Store, name: str) -> int:
    """Return the id of a study. Raises: StudyError if there is none of this name."""
    query = sa.select(schema.studies.c.study_id).where(schema.studies.c.study_name == name)
    study_id = connection.execute(query).scalar()
    if study_id is None:
        raise StudyError(f'No study named "{name}" in {shown(store.url)}. {suggestion(name, names(connection))}')
    return int(study_id)


def load_study(store: Store, name: str) -> StudyRecord:
    """Return a study. Raises: StudyError if there is none of this name, or if it was not made by hpo; StoreError."""
    with store.read() as connection:
        study_id = id_of(connection, store, name)
        attributes = load_attributes(connection, study_id)
        row = connection.execute(sa.select(schema.hpo_studies).where(schema.hpo_studies.c.study_id == study_id)).first()
    space, recipe, fingerprint = attributes.space, attributes.recipe, attributes.data_fingerprint
    if row is None or space is None or recipe is None or fingerprint is None:
        raise StudyError(f'Study "{name}" was not made by hpo: optuna can read it, hpo cannot run it.')
    where = f'study "{name}"'
    return StudyRecord(
        study_id=study_id,
        uid=check_uid(row.uid),
        name=name,
        space_name=attributes.space_name or name,
        space=documents.check(SearchSpace, space, f"{where}: space"),
        recipe=documents.check(StudyRecipe, recipe, f"{where}: recipe"),
        fingerprint=fingerprint,
    )


def space_of(connection: Connection, study_id: int, name: str) -> SearchSpace:
    """Return a study's space as it is now. Raises: DocumentError."""
    return documents.check(SearchSpace, load_attributes(connection, study_id).space or {}, f'study "{name}": space')


def invalidate_caches(connection: Connection, study_id: int) -> None:
    """Have every worker read a study's finished trials anew, because some of them have changed."""
    table = schema.hpo_studies
    changed = sa.update(table).where(table.c.study_id == study_id)
    connection.execute(changed.values(revision=table.c.revision + 1))


def check_same(
    study: StudyRecord,
    space: SearchSpace | None,
    recipe: StudyRecipe | None,
    given: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Compare the space and recipe that a command names with the study's; None stands for the study's own.

    `given` are fields of the recipe that the command sets by separate options.
    Raises: StudyError that names every difference and the ways out.
    """
    differences = []
    if space is not None:
        differences += documents.differences("space", study.space.identity(), space.identity())
    if recipe is not None:
        kept: dict[str, Any] = {"seed": study.recipe.seed}  # --seed may have set it
        if recipe.objective is None:  # --objective may have set it
            kept["objective"] = study.recipe.objective
        differences += documents.differences("recipe", study.recipe.identity(), recipe.identity() | kept)
    stored = documents.dump(study.recipe)
    before = {name: stored[name] for name in given}
    if "objective" in before:
        before["objective"] = stored["objective"] if study.recipe.cost is not None else study.metric
    differences += documents.differences("recipe", before, dict(given))
    if differences:
        raise StudyError(
            f'Study "{study.name}" was made of something else ({"; ".join(differences)}). '
            f"Resume it as it is: `hpo run --study {study.name}`. Or start another: --study NEW_NAME."
        )


def check_data(study: StudyRecord, fingerprint: str) -> None:
    """Refuse data that differs from the study's. Raises: StudyError."""
    if fingerprint != study.fingerprint:
        raise StudyError(
            f'Study "{study.name}": its data must have fingerprint {study.fingerprint[:16]}..., '
            f"got {fingerprint[:16]}...: its scores would not compare. Use the same data, or start another study."
        )


def update_budget(store: Store, study: StudyRecord, **limits: Any) -> Budget:
    """Change the given limits of a study and allow it to resume if it had stopped; return the whole budget.

    Raises: DocumentError for limits that are none; StudyError, UsageError for second chances that cannot be given.
    """
    table = schema.hpo_studies
    where = table.c.study_id == study.study_id
    with store.write() as connection:
        store.lock_study(connection, study.study_id)
        content = json.loads(connection.execute(sa.select(table.c.budget_json).where(where)).scalar_one())
        budget = documents.check(Budget, content | limits, "budget")
        if budget.revive > content.get("revive", 0):
            second_chances.check_prunes(study.recipe, budget.revive)
            finished = count(connection, is_of(study.study_id, FINISHED))
            second_chances.check_possible(connection, study.study_id, study.name, budget, finished)
        text = json.dumps(documents.dump(budget))
        connection.execute(sa.update(table).where(where).values(budget_json=text, stop_reason=None))
    return budget


def stop(store: Store, study: StudyRecord, reason: str) -> None:
    """Have all workers of a study stop, with this reason; a new `hpo run` resumes it."""
    table = schema.hpo_studies
    with store.write() as connection:
        connection.execute(sa.update(table).where(table.c.study_id == study.study_id).values(stop_reason=reason))
