"""Everything that hpo does, as functions: values in, values out, nothing printed.

The command line and the public Python API call these and nothing below them. The modules are imported when they are
first used (`service.train.train_model`): several of them need torch or Optuna, which take seconds to import.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpo.service import (
        admin,
        audit,
        confirm,
        create,
        dashboard,
        data,
        doctor,
        export,
        logs,
        names,
        next_steps,
        places,
        predict,
        progress,
        report,
        search,
        spaces,
        stores,
        studies,
        train,
        trust,
        warm_start,
        worker,
    )

__all__ = [
    "admin",
    "audit",
    "confirm",
    "create",
    "dashboard",
    "data",
    "doctor",
    "export",
    "logs",
    "names",
    "next_steps",
    "places",
    "predict",
    "progress",
    "report",
    "search",
    "spaces",
    "stores",
    "studies",
    "train",
    "trust",
    "warm_start",
    "worker",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
