"""Every error that a user can cause, worded as *where: rule, got value. Remedy.*"""

from collections.abc import Iterable
from difflib import get_close_matches

from hpo.text import printable


class HpoError(Exception):
    """An error that a user can fix; the command line prints its text as it is and exits with `exit_code`."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the text, printable: what it quotes of files and stores cannot act on a terminal."""
        return printable(super().__str__())


class UsageError(HpoError):
    """The command line itself is wrong: an unknown name, a value out of range, a malformed URL."""

    exit_code = 2


class DocumentError(HpoError):
    """A space, recipe or configuration file breaks a rule; one line per broken rule."""


class DataError(HpoError):
    """A data set is missing, damaged or not the one that the study was created with."""


class InputError(DataError, ValueError):
    """Arrays or a table given from Python that break a rule; a ValueError too, as scikit-learn's users expect."""


class ModelError(HpoError):
    """A network that cannot be built for these inputs."""


class StoreError(HpoError):
    """A store that cannot be reached, read or written."""


class StoreUnavailableError(StoreError):
    """A store that does not answer now; asking again later may help."""


class StudyError(HpoError):
    """A study that is missing, or that the request contradicts."""


class TrainingError(HpoError):
    """A training run that ended without a model."""


LISTED = 12
"""Most known names that an error lists."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return 'Did you mean X? Known: A, B.' for an unknown name; no question where no known name is similar."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    question = f"Did you mean {near[0]}? " if near else ""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{question}Known: {', '.join(names[:LISTED]) or 'none'}{more}."
