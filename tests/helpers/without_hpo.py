"""`python -m tests.helpers.without_hpo SCRIPT`: run a Python script in a process that cannot import hpo."""

import runpy
import sys

if __name__ == "__main__":
    for name in [name for name in sys.modules if name.partition(".")[0] == "hpo"]:
        del sys.modules[name]
    sys.modules["hpo"] = None  # type: ignore[assignment]
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
