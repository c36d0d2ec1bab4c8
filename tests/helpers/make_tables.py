"""`python -m tests.helpers.make_tables URL`: open a store, which makes its tables if there are none."""

import sys

from hpo.store.database.connect import open_store
from hpo.store.database.url import parse

if __name__ == "__main__":
    open_store(parse(sys.argv[1]), create=True)
