"""From the options of `hpo run` to an open study: made, or resumed as what it was."""

from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from hpo import data, documents
from hpo.cli.data import fetch_with_progress
from hpo.cli.options import talk
from hpo.config import LABELS, Metric, OwnData
from hpo.errors import DocumentError, StudyError, UsageError, suggestion
from hpo.grid import grid
from hpo.recipe import Budget, MinimizedCost, StudyRecipe, load_recipe
from hpo.space import SearchSpace, load_space
from hpo.store import studies
from hpo.store.database.connect import Store, exists, open_store
from hpo.store.database.url import configured, shown
from hpo.store.studies import StudyRecord
from hpo.suggesters import FixedSuggester, RandomSuggester, Suggester


def _try_code(space: SearchSpace) -> None:
    """Draw and build networks by code of the user's own, before any trial is spent.

    Raises: ModelError, DocumentError.
    """
    if space.python is None and space.model is None:
        return
    from hpo.models import build_model

    info = data.info(space.data)
    suggesters: list[Suggester] = [FixedSuggester(baseline.values()) for baseline in space.baselines]
    try:
        for suggester in [*suggesters, *(RandomSuggester(i) for i in range(TRIED))]:
            config = space.draw(suggester, seed=0)
            build_model(config.model, config.input_shape(info.input_shape), len(info.classes))
    except ValueError as error:
        raise DocumentError(f"baselines: {error}") from error


def _check_fidelity(space: SearchSpace, recipe: StudyRecipe) -> None:
    for name in recipe.fidelity.fields():
        if isinstance(getattr(space, name), BaseModel):
            raise UsageError(
                f"recipe: fidelity.{name}: goes with a space whose {name} is a constant, got a range. "
                "Remove it from the recipe, or fix it in the space."
            )


TRIED = 5
"""Random draws for which code of the user's own must work before a study is made of it."""
SHOWN_CLASSES = 6
IMBALANCE = 3
"""The largest class is so many times the smallest: then accuracy mostly tells of the large ones."""


def prepare(
    space_name: str | None,
    study_name: str | None,
    recipe_name: str | None,
    given: dict[str, Any],
    storage: str | None,
    limits: dict[str, Any],
    own: OwnData | None = None,
) -> tuple[Store, StudyRecord, bool]:
    """Open the study that the options name, or make it (then the last of the answer is True).

    `given` takes the place of fields of the recipe, `own` of the space's data. Nothing is made unless all is right.
    Raises: HpoError for whatever is wrong.
    """
    space = load_space(space_name, trust_code=True) if space_name is not None else None
    if space is not None and own is not None:
        space = space.model_copy(update={"data": own})
    recipe = load_recipe(recipe_name) if recipe_name is not None else None
    if space is not None and space.data is not None:
        space.check_inputs(data.info(space.data).input_shape, str(space_name))
    document = str(space_name).removesuffix(".toml").rpartition("/")[2]
    name = studies.check_name(study_name or document)
    url = configured(storage)
    store = None
    if exists(url):
        store = open_store(url)
        if name in _names(store):
            return store, _resume(store, name, space, recipe, given, limits), False
    if space is None:
        known = _names(store) if store is not None else []
        raise StudyError(
            f'No study named "{name}" in {shown(url)}. {suggestion(name, known)} '
            f"To make it: hpo run --study {name} --space SPACE"
        )
    recipe = recipe or load_recipe("default")
    recipe = documents.check(StudyRecipe, documents.dump(recipe) | given, "recipe")
    _check_fidelity(space, recipe)
    budget = Budget.model_validate(recipe.budget.model_dump() | limits)
    recipe = recipe.model_copy(update={"budget": budget})
    searched = recipe.applied_to(space)
    searched.check_inputs(data.info(space.data).input_shape, str(space_name))
    _try_code(searched)
    _say_grid(space, recipe)
    check_baselines(searched, str(space_name))
    fetch_with_progress(space.data)
    fingerprint = data.fingerprint(data.info(space.data), space.split)
    if store is None:
        store = open_store(url, create=True)
        talk().print(f"made a new store: {shown(url)}")
    made = studies.create(store, name, document, space, recipe, fingerprint)
    if not made:  # another process was faster
        return store, _resume(store, name, space, recipe, given, limits), False
    talk().print(f'made study "{name}": up to {budget.trials} trials of {space.title or document}')
    study = studies.load_study(store, name)
    if isinstance(space.data, OwnData):
        talk().print(_classes(space.data, study.metric), markup=False)
    return store, study, True


def _classes(source: OwnData, metric: Metric) -> str:
    """Say how many rows each class has, and what to do if that is uneven."""
    counts = data.class_counts(data.info(source))
    total, most = sum(counts.values()), sorted(counts, key=lambda name: -counts[name])
    listed = ", ".join(f"{name} {100 * counts[name] / total:.0f} %" for name in most[:SHOWN_CLASSES])
    more = f", {len(most) - SHOWN_CLASSES} more" if len(most) > SHOWN_CLASSES else ""
    text = f"{source.name}: {total:,} training rows, {len(counts)} classes: {listed}{more}."
    if counts[most[0]] < IMBALANCE * counts[most[-1]] or metric in ("balanced_accuracy", "macro_f1"):
        return text
    return (
        f'{text} They are imbalanced: consider --objective balanced_accuracy, and class_weight = "balanced" '
        "or choices of it in the space."
    )


def check_objective(text: str | None) -> Metric | list[str] | None:
    """Return the metric, or the metric and the cost, that --objective names. Raises: UsageError."""
    if text is None:
        return None
    name, comma, cost = (part.strip() for part in text.partition(","))
    metric = next((known for known in LABELS if known == name), None)
    if metric is None:
        raise UsageError(f'--objective: no metric named "{name}". {suggestion(name, LABELS)}')
    costs = get_args(MinimizedCost)
    if comma and cost not in costs:
        raise UsageError(f'--objective: no cost named "{cost}". {suggestion(cost, costs)}')
    return [metric, cost] if comma else metric


def check_baselines(space: SearchSpace, where: str) -> None:
    """Refuse a space whose baselines break its own constraints on this machine. Raises: DocumentError."""
    if not space.constraints.limits or not space.baselines:
        return
    from hpo.service.network_checks import check_baselines as check

    check(space, where)


def _say_grid(space: SearchSpace, recipe: StudyRecipe) -> None:
    """Say how large a grid is, if the sampler is one. Raises: UsageError for a grid without end."""
    if recipe.sampler.name != "grid":
        return
    size, trials = len(grid(recipe.applied_to(space))), recipe.budget.trials
    enough = f"; the budget of {trials} trials ends before: --trials {size} for all" if size > trials else ""
    talk().print(f"grid of {size:,} configurations{enough}")


def own_data(path: str | None, target: str | None) -> OwnData | None:
    """Return the data that --data and --target name. Raises: UsageError."""
    if path is None:
        if target is not None:
            raise UsageError("--target: goes with --data, which is missing. Add it.")
        return None
    whole = Path(path).absolute()
    if not whole.exists():
        raise UsageError(f"--data: {path}: no such file or folder.")
    if whole.is_dir():
        return OwnData(image_folder=str(whole))
    if whole.suffix == ".npz":
        return OwnData(npz=str(whole))
    if whole.suffix not in (".csv", ".parquet", ".pq"):
        raise UsageError(f"--data: must be a .csv, .parquet or .npz file or a folder of images, got {path}.")
    if target is None:
        raise UsageError(f"--target: is required with {whole.name}: the column that holds the class.")
    return OwnData(csv=str(whole), target=target)


def _names(store: Store) -> list[str]:
    with store.read() as connection:
        return studies.names(connection)


def _resume(
    store: Store,
    name: str,
    space: SearchSpace | None,
    recipe: StudyRecipe | None,
    given: dict[str, Any],
    limits: dict[str, Any],
) -> StudyRecord:
    study = studies.load_study(store, name)
    if space is not None and space.data is None:
        space = space.model_copy(update={"data": study.space.data})
    studies.check_same(study, space, recipe, given)
    fetch_with_progress(study.space.data)
    studies.check_data(study, data.fingerprint(data.info(study.space.data), study.space.split))
    budget = studies.update_budget(store, study, **limits)
    _say_grid(study.space, study.recipe.model_copy(update={"budget": budget}))
    return study
