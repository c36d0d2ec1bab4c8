"""Data sets: known by name, fetched, verified, split. Arrays only: nothing here needs torch."""

from hpo.data.cache import cache_folder, fetch, state
from hpo.data.encoding import Encoding
from hpo.data.loading import Inputs, Parts, class_counts, fingerprint, info, load_parts, load_test
from hpo.data.registry import DataInfo, known

__all__ = [
    "DataInfo",
    "Encoding",
    "Inputs",
    "Parts",
    "cache_folder",
    "class_counts",
    "fetch",
    "fingerprint",
    "info",
    "known",
    "load_parts",
    "load_test",
    "state",
]
