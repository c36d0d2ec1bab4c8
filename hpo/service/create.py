"""A study to work on: created from a space and a recipe, or resumed as what it was.

Nothing is created unless everything is right: the documents, the data, the baselines, the user's own code.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from hpo import data, documents
from hpo.config import LABELS, DataSource, Metric, OwnData
from hpo.errors import StudyError, UsageError, suggestion
from hpo.grid import grid
from hpo.recipe import Budget, MinimizedCost, StudyRecipe, load_recipe, parse_timeout
from hpo.service.data import ClassCounts, OnDownload, class_counts, fetch_data, ignore_download
from hpo.space import SearchSpace, load_space, read_space
from hpo.store import studies
from hpo.store.database.connect import Store, exists, open_store
from hpo.store.database.url import configured, shown
from hpo.store.leases import second_chances, stopping
from hpo.store.studies import StudyRecord

__all__ = [
    "Budget",
    "OpenedStudy",
    "Store",
    "StudyRecord",
    "StudyRequest",
    "open_existing",
    "open_study",
    "parse_objective",
    "parse_timeout",
]


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """Which study to open: what it is made of, or only its name if it exists."""

    space: str | Path | Mapping[str, Any] | SearchSpace | None = None
    """Where to look: a name of `hpo spaces list`, a path ending in .toml, a document's content, or a space."""
    study: str | None = None
    """The study's name; None for the name of the space."""
    recipe: str | Path | Mapping[str, Any] | StudyRecipe | None = None
    """How to look: a name of `hpo recipes list`, a path, a document's content, or a recipe. None for the default."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the recipe to change, such as seed, objective and sampler; a table changes only the fields it has."""
    limits: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the recipe's budget to change: trials, timeout, target, patience, max_failures."""
    storage: str | None = None
    """URL of the store; None for `HPO_STORAGE`, else the default store."""
    data: DataSource | None = None
    """Data to take in place of the space's."""


@dataclass(frozen=True)
class OpenedStudy:
    """A study in its open store."""

    store: Store
    study: StudyRecord
    budget: Budget
    created: bool = False
    """Whether the study was created now; False if it existed before."""
    store_created: bool = False
    """Whether the store was created now."""
    grid_size: int | None = None
    """Configurations of the grid, if the sampler is one."""
    class_counts: ClassCounts | None = None
    """Rows of each class, of a study created now over data of the user's own."""


@dataclass(frozen=True)
class _Parts:
    """The documents of a request, read and checked."""

    name: str
    """The study's name."""
    space: SearchSpace | None
    space_name: str
    where: str
    """The space, as errors name it."""
    recipe: StudyRecipe | None


def open_study(request: StudyRequest, *, on_download: OnDownload = ignore_download) -> OpenedStudy:
    """Create the study of a request, or resume the one that has its name.

    A study that exists must have been made of the same space, recipe and data; its limits are changed to those of the
    request. Raises: HpoError for whatever is wrong; then nothing has been created or changed.
    """
    parts = _read(request)
    url = configured(request.storage)
    with contextlib.ExitStack() as on_error:
        store = None
        if exists(url):
            store = open_store(url)
            on_error.callback(store.dispose)
            if parts.name in _names(store):
                opened = _resume(store, parts, request, on_download)
                on_error.pop_all()
                return opened
        if parts.space is None:
            known = _names(store) if store is not None else []
            raise StudyError(
                f'No study named "{parts.name}" in {shown(url)}. {suggestion(parts.name, known)} '
                f"To make it: hpo run --study {parts.name} --space SPACE"
            )
        recipe = _recipe(parts.recipe or load_recipe("default"), request)
        second_chances.check_prunes(recipe, recipe.budget.revive)
        size = _check_searched(parts.space, recipe, parts.where)
        fetch_data(parts.space.data, on_download=on_download)
        fingerprint = data.fingerprint(data.info(parts.space.data), parts.space.split)
        store_created = store is None
        if store is None:
            store = open_store(url, create=True)
            on_error.callback(store.dispose)
        if not studies.create(store, parts.name, parts.space_name, parts.space, recipe, fingerprint):
            opened = _resume(store, parts, request, on_download)  # another process was faster
        else:
            of_user = isinstance(parts.space.data, OwnData)
            opened = OpenedStudy(
                store=store,
                study=studies.load_study(store, parts.name),
                budget=recipe.budget,
                created=True,
                store_created=store_created,
                grid_size=size,
                class_counts=class_counts(parts.space.data) if of_user else None,
            )
        on_error.pop_all()
    return opened


def open_existing(name: str, storage: str | None = None) -> OpenedStudy:
    """Open a study that exists, as it is: nothing of it is changed.

    Raises: UsageError, StoreError for the store; StudyError if it has no study of this name.
    """
    store = open_store(configured(storage))
    try:
        study = studies.load_study(store, name)
        with store.read() as connection:
            budget, _ = stopping.budget_of(connection, study.study_id)
    except BaseException:
        store.dispose()
        raise
    return OpenedStudy(store, study, budget)


def parse_objective(text: str) -> Metric | list[str]:
    """Return the metric, or the metric and the cost, of a text METRIC or METRIC,COST. Raises: UsageError."""
    name, comma, cost = (part.strip() for part in text.partition(","))
    metric = next((known for known in LABELS if known == name), None)
    if metric is None:
        raise UsageError(f'objective: no metric named "{name}". {suggestion(name, LABELS)}')
    costs = get_args(MinimizedCost)
    if comma and cost not in costs:
        raise UsageError(f'objective: no cost named "{cost}". {suggestion(cost, costs)}')
    return [metric, cost] if comma else metric


def _read(request: StudyRequest) -> _Parts:
    space, where, space_name = _space(request)
    if space is not None and request.data is not None:
        space = space.model_copy(update={"data": request.data})
    recipe = request.recipe
    if isinstance(recipe, Mapping):
        recipe = documents.check(StudyRecipe, recipe, "recipe")
    elif isinstance(recipe, str | Path):
        recipe = load_recipe(str(recipe))
    if space is not None and space.data is not None:
        space.check_inputs(data.info(space.data).input_shape, where)
    if request.space is None and request.study is None:
        raise UsageError("study: a space or a study is required, got neither. Name one.")
    if not (request.study or space_name):
        raise UsageError("study: a name is required with a space that has none, got none. Add a name.")
    name = studies.check_name(request.study or space_name)
    return _Parts(name, space, space_name or name, where, recipe)


def _space(request: StudyRequest) -> tuple[SearchSpace | None, str, str]:
    """Return the space of a request, how errors name it, and its own name: empty for one that is not a document."""
    match request.space:
        case None:
            return None, "space", ""
        case SearchSpace() as space:
            return space, "space", ""
        case Mapping() as content:
            return read_space(dict(content), Path(), "space", trust_code=True), "space", ""
        case str() | Path() as named:
            return load_space(str(named), trust_code=True), str(named), Path(str(named).removesuffix(".toml")).name


def _recipe(recipe: StudyRecipe, request: StudyRequest) -> StudyRecipe:
    """Return a recipe with the overrides and limits of a request. Raises: DocumentError."""
    recipe = _overridden(recipe, request.overrides)
    budget = documents.check(Budget, documents.dump(recipe.budget) | dict(request.limits), "budget")
    return recipe.model_copy(update={"budget": budget})


def _overridden(recipe: StudyRecipe, overrides: Mapping[str, Any]) -> StudyRecipe:
    """Return a recipe with some fields changed; a table changes only the fields that it has. Raises: DocumentError."""
    return documents.check(StudyRecipe, _merged(documents.dump(recipe), overrides), "recipe")


def _merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(content)
    for key, value in changes.items():
        before = merged.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(before, value) if both else value  # type: ignore[arg-type]
    return merged


def _check_searched(space: SearchSpace, recipe: StudyRecipe, where: str) -> int | None:
    """Check that a space can be searched by a recipe on this machine; return the grid's size, if the sampler is one.

    Raises: UsageError, DocumentError, ModelError.
    """
    for name in recipe.fidelity.fields():
        if isinstance(getattr(space, name), BaseModel):
            raise UsageError(
                f"recipe: fidelity.{name}: goes with a space whose {name} is a constant, got a range. "
                "Remove it from the recipe, or fix it in the space."
            )
    searched = recipe.applied_to(space)
    searched.check_inputs(data.info(space.data).input_shape, where)
    if searched.python is not None or searched.model is not None:
        from hpo.service.network_checks import try_networks  # it needs torch, which takes seconds to import

        try_networks(searched)
    size = _grid_size(space, recipe)
    if searched.constraints.limits and searched.baselines:
        from hpo.service.network_checks import check_baselines

        check_baselines(searched, where)
    return size


def _grid_size(space: SearchSpace, recipe: StudyRecipe) -> int | None:
    return len(grid(recipe.applied_to(space))) if recipe.sampler.name == "grid" else None


def _names(store: Store) -> list[str]:
    with store.read() as connection:
        return studies.names(connection)


def _resume(store: Store, parts: _Parts, request: StudyRequest, on_download: OnDownload) -> OpenedStudy:
    study = studies.load_study(store, parts.name)
    space = parts.space
    if space is None and request.data is not None:
        space = study.space.model_copy(update={"data": request.data})
    elif space is not None and space.data is None:
        space = space.model_copy(update={"data": study.space.data})
    # What the overrides come to, complete and in plain types; only of what makes a search another one.
    changed = _overridden(study.recipe, request.overrides).identity()
    overrides = {key: changed[key] for key in request.overrides if key in changed}
    studies.check_same(study, space, parts.recipe, overrides)
    fetch_study_data(study, on_download=on_download)
    budget = studies.update_budget(store, study, **request.limits)
    return OpenedStudy(store, study, budget, grid_size=_grid_size(study.space, study.recipe))


def fetch_study_data(study: StudyRecord, *, on_download: OnDownload = ignore_download) -> None:
    """Bring a study's data into the cache. Raises: DataError without a source, StudyError if it differs."""
    fetch_data(study.space.data, on_download=on_download)
    studies.check_data(study, data.fingerprint(data.info(study.space.data), study.space.split))
