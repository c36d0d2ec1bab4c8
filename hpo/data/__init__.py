"""Data sets: known by name, fetched, verified, split. Arrays only: nothing here needs torch."""

from hpo.data.cache import cache_folder, fetch, state
from hpo.data.encoding import Encoding
from hpo.data.input_format import InputFormat, decode_file, decode_rows
from hpo.data.loading import Inputs, Parts, class_counts, fingerprint, info, load_parts, load_test
from hpo.data.registry import DataInfo, known

__all__ = [
    "DataInfo",
    "Encoding",
    "InputFormat",
    "Inputs",
    "Parts",
    "cache_folder",
    "class_counts",
    "decode_file",
    "decode_rows",
    "fetch",
    "fingerprint",
    "info",
    "known",
    "load_parts",
    "load_test",
    "state",
]
