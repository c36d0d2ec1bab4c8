"""Data sets: known by name, fetched, verified, split. Arrays only: nothing here needs torch."""

from hpo.data.cache import cache_folder, fetch, state
from hpo.data.loading import Inputs, Parts, fingerprint, load_parts, load_test
from hpo.data.registry import DataInfo, info, known

__all__ = [
    "DataInfo",
    "Inputs",
    "Parts",
    "cache_folder",
    "fetch",
    "fingerprint",
    "info",
    "known",
    "load_parts",
    "load_test",
    "state",
]
