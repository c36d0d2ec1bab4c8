"""Where an exported config is from, in what hpo reads of it; the rest is kept as it is."""

import shlex
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from hpo import documents
from hpo.config.fields import Finite
from hpo.errors import DocumentError
from hpo.results.intervals import Interval
from hpo.results.promise import Promise
from hpo.text import one_line


@dataclass(frozen=True)
class Provenance:
    """Those fields of a provenance that hpo reads, each None where it is missing."""

    __pydantic_config__ = ConfigDict(extra="ignore")

    study: str | None = None
    trial: Annotated[int, Field(ge=0)] | None = None
    data_fingerprint: str | None = None
    fresh_mean: Finite | None = None
    promised_test_score: tuple[Finite, Finite] | None = None
    """Of one more training, in the metric of the config."""
    promised_mean_test_score: tuple[Finite, Finite] | None = None
    """Of the mean of very many more trainings."""
    promised_test_accuracy: tuple[Finite, Finite] | None = None
    """What exports of version 0.1.0 have instead."""
    precision: str | None = None
    confirmed: bool | None = None
    better_than_baseline: bool | None = None
    verdict: str | None = None
    chosen_by_hand: bool | None = None

    @property
    def promise(self) -> Promise | None:
        """Where the test scores of further trainings should lie."""
        promised = self.promised_test_score or self.promised_test_accuracy
        if promised is None:
            return None
        one, mean = Interval(*promised), self.promised_mean_test_score
        if self.fresh_mean is None or mean is None:
            return Promise((one.low + one.high) / 2, one)
        return Promise(self.fresh_mean, one, Interval(*mean))


def check_provenance(content: dict[str, Any], where: str) -> Provenance:
    """Return what hpo reads of a provenance. Raises: DocumentError for a field of another type."""
    for key, value in content.items():
        if not _is_plain(value):
            raise DocumentError(f"{where}: {one_line(key)}: must be texts and numbers, got {type(value).__name__}.")
    return documents.check(Provenance, content, where)


def _is_plain(value: Any) -> bool:
    """Say whether a value is texts, numbers, and lists and tables of them: what each format of an export can hold."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(entry) for key, entry in value.items())
    return isinstance(value, str | int | float)


def describe(provenance: dict[str, Any]) -> str:
    """Return in words, in one line, how a config was chosen. Raises: DocumentError."""
    known = check_provenance(provenance, "provenance")
    if known.confirmed:
        kind = "the confirmed winner" if known.better_than_baseline else "the first of those tried on fresh seeds"
        return one_line(f"{kind}: {known.verdict}")
    if known.chosen_by_hand:
        return f"trial {known.trial}, chosen by hand: its score may be luck"
    if known.study is not None:
        command = f"hpo confirm {shlex.quote(one_line(known.study))}"
        return f"the best trial, not confirmed: its score may be luck. To know: {command}"
    return "a configuration without provenance"
