"""`hpo.Confirmation`: what training the best configurations again on fresh seeds and rows has shown."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from hpo.api import display
from hpo.config import TrialConfig
from hpo.results import candidates

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Confirmation:
    """The verdict on a study's winner: the best configurations and the baseline, trained again on fresh seeds and rows.

    Shows itself as a table in a notebook.
    """

    result: candidates.Confirmation
    """The numbers: candidates with their values, intervals and promised test scores."""

    @property
    def verdict(self) -> str:
        """The outcome in words, such as "better than the baseline by 0.0125 ± 0.0098"."""
        return self.result.verdict

    @property
    def is_better(self) -> bool:
        """Whether the winner is better than the baseline beyond chance (95 %)."""
        return self.result.certain

    @property
    def winner(self) -> int:
        """Number of the trial with the highest mean over the cuts that all candidates have in common."""
        return self.result.winner.number

    @property
    def config(self) -> TrialConfig:
        """Configuration of the winner."""
        return self.result.winner.config

    @property
    def promise(self) -> tuple[float, float] | None:
        """Interval (95 %) for the score of one more training on rows like those of training; None if not known.

        It holds for the test split where hpo cut it itself (`result.test_like_training`); others may be harder.
        """
        promise = self.result.winner.promise
        return None if promise is None else (promise.low, promise.high)

    @cached_property
    def table(self) -> "pd.DataFrame":
        """One row for each configuration, the winner first.

        Columns: trial; baseline (its name, if it is one); searched (value in the search); mean, low, high (of the fresh
        seeds, with its 95 % interval); seeds (trainings); gap, gap_low, gap_high (to the baseline); configuration.
        """
        import pandas as pd

        rows = []
        for candidate in self.result.candidates:
            gap = candidate.gap
            rows.append(
                {
                    "trial": candidate.number,
                    "baseline": candidate.baseline,
                    "searched": candidate.searched,
                    "mean": candidate.mean,
                    "low": candidate.interval.low,
                    "high": candidate.interval.high,
                    "seeds": len(candidate.values),
                    "gap": None if gap is None else (gap.low + gap.high) / 2,
                    "gap_low": None if gap is None else gap.low,
                    "gap_high": None if gap is None else gap.high,
                    "configuration": candidate.config.summary(),
                }
            )
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        return f"Confirmation(trial {self.winner} is {self.verdict})"

    def _repr_html_(self) -> str:
        missing = f"{self.result.missing} trainings are missing." if self.result.missing else ""
        promise = self.promise
        rows = "test rows" if self.result.test_like_training else "rows like those of training (test rows may differ)"
        promised = "" if promise is None else f"Promised score on {rows}: {promise[0]:.4f} to {promise[1]:.4f}."
        lines = [f"Trial {self.winner} is {self.verdict}.", promised, missing]
        return display.page(f"Confirmation {self.result.study}", lines, self.table)
