"""Hyperparameter search for PyTorch classifiers, with studies that persist.

The public names are those of `__all__`; everything else may change. They are imported when they are first used: torch,
Optuna and pandas take seconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"

if TYPE_CHECKING:
    from hpo import errors
    from hpo.api.classifier import SearchClassifier
    from hpo.api.confirmation import Confirmation
    from hpo.api.load import load
    from hpo.api.search import open, search, studies
    from hpo.api.study import Study
    from hpo.api.trial import Trial
    from hpo.config import TrialConfig
    from hpo.recipe import StudyRecipe
    from hpo.results.model_folder import Classifier
    from hpo.space import SearchSpace

_HOMES = {
    "Classifier": "hpo.results.model_folder",
    "Confirmation": "hpo.api.confirmation",
    "SearchClassifier": "hpo.api.classifier",
    "SearchSpace": "hpo.space",
    "Study": "hpo.api.study",
    "StudyRecipe": "hpo.recipe",
    "Trial": "hpo.api.trial",
    "TrialConfig": "hpo.config",
    "load": "hpo.api.load",
    "open": "hpo.api.search",
    "search": "hpo.api.search",
    "studies": "hpo.api.search",
}
"""Module of each public name."""

__all__ = [
    "Classifier",
    "Confirmation",
    "SearchClassifier",
    "SearchSpace",
    "Study",
    "StudyRecipe",
    "Trial",
    "TrialConfig",
    "__version__",
    "errors",
    "load",
    "open",
    "search",
    "studies",
]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("hpo.errors")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
