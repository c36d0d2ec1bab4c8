"""The result of a check: ok, warning or failure, and the remedy."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from hpo.errors import HpoError

Status = Literal["ok", "warning", "failure"]


@dataclass(frozen=True)
class Finding:
    """One line of a doctor's report."""

    check: str
    status: Status
    text: str
    remedy: str = ""


def ok(check: str, text: str) -> Finding:
    """Return the finding that all is well."""
    return Finding(check, "ok", text)


def warning(check: str, text: str, remedy: str) -> Finding:
    """Return the finding that something works, but could be better."""
    return Finding(check, "warning", text, remedy)


def failure(check: str, text: str, remedy: str) -> Finding:
    """Return the finding that something does not work."""
    return Finding(check, "failure", text, remedy)


def guarded(check: str, examine: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield the findings of a check; an error in it becomes a failure, and does not stop the other checks."""
    try:
        yield from examine()
    except HpoError as error:
        rule, _, remedy = str(error).partition(". ")
        yield failure(check, rule, remedy)
    except (OSError, RuntimeError, ValueError) as error:
        yield failure(check, f"{type(error).__name__}: {error}", "")


def milliseconds(action: Callable[[], object], repeats: int = 5) -> float:
    """Return the milliseconds that the fastest of some runs took."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return 1000 * best
