"""Child processes in Python: each is started by a command from here."""

import sys


def python(*arguments: str) -> list[str]:
    """Return the command that runs this Python with arguments, such as `-m hpo.plots`.

    Option -P: the working folder is not on the child's path, so that a torch.py which lies there is not imported.
    """
    return [sys.executable, "-P", *arguments]
