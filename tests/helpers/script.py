"""`python -m tests.helpers.script SCRIPT`: run a Python script in a process that starts at once."""

import runpy
import sys

if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
