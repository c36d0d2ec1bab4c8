"""Trials of a large study reach an open page in parts: it would wait a minute for 100,000 of them, 600 MB, at once.

A page of optuna-dashboard asks, every few seconds, for the trials from the first on that, as far as it knows, has not
ended. So what is left out of an answer is asked for by the next request. The best trials are in each answer.
"""

from typing import Any

from optuna.trial import FrozenTrial
from optuna_dashboard import _app, _serializer

MOST_AT_ONCE = 5000
"""Trials in an answer: about 30 MB of JSON, which a server makes in a second."""


def part_of(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Return the part of the trials that a page has asked for, in the order of their numbers, which it is sent.

    It is all of them where the first has not ended: the page would ask for the same part again.
    """
    return trials[:MOST_AT_ONCE] if trials and trials[0].state.is_finished() else trials


def install() -> None:
    """Have optuna-dashboard answer in parts."""
    _app.serialize_study_detail = _study_detail


def _study_detail(study: Any, best_trials: list[FrozenTrial], trials: list[FrozenTrial], *rest: Any) -> dict[str, Any]:
    detail: dict[str, Any] = _serializer.serialize_study_detail(study, best_trials, part_of(trials), *rest)
    return detail
