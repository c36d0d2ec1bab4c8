"""`hpo.Trial`: one trial of a study, and tables of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from hpo.config import TrialConfig
    from hpo.store.views import TrialView


@dataclass(frozen=True)
class Trial:
    """One configuration that was drawn, and the result of training it."""

    number: int
    """Number in the study, from 0."""
    state: str
    """COMPLETE, PRUNED, FAIL, RUNNING or WAITING."""
    value: float | None
    """Value of the metric; None before the first epoch."""
    config: "TrialConfig | None"
    """Complete description of the training; None before it is drawn."""
    params: dict[str, Any]
    """Drawn parameters by name, such as optimizer.lr."""
    curve: dict[int, float]
    """Value of the metric by epoch, from 1."""
    cost: float | None = None
    """Value of the second objective, if there are two."""
    epochs: int | None = None
    """Epochs completed; None for a trial that has not ended."""
    seconds: float | None = None
    """Seconds of training; None for a trial that has not ended."""
    parameters: int | None = None
    """Trainable weights; None before training."""
    baseline: str | None = None
    """Name of the baseline, if it is one."""

    @staticmethod
    def of(view: "TrialView") -> "Trial":
        """Return a trial as it was read from a store."""
        attributes = view.attributes
        return Trial(
            number=view.number,
            state=str(view.state),
            value=view.value,
            config=None if attributes.config is None else view.config,
            params=view.params,
            curve=view.curve,
            cost=view.cost,
            epochs=attributes.epochs,
            seconds=attributes.seconds,
            parameters=attributes.parameters,
            baseline=attributes.baseline,
        )

    def __repr__(self) -> str:
        value = "None" if self.value is None else f"{self.value:.4f}"
        summary = "" if self.config is None else f": {self.config.summary()}"
        return f"Trial({self.number}, {self.state}, value={value}{summary})"


def table_of(trials: Sequence[Trial], *, cost: bool) -> "pd.DataFrame":
    """Return trials as a table, one row each; parameters in columns of their own."""
    import pandas as pd

    rows = []
    for trial in trials:
        row: dict[str, Any] = {"number": trial.number, "state": trial.state, "value": trial.value}
        if cost:
            row["cost"] = trial.cost
        row |= {
            "epochs": trial.epochs,
            "seconds": trial.seconds,
            "parameters": trial.parameters,
            "baseline": trial.baseline,
            "configuration": "" if trial.config is None else trial.config.summary(),
        }
        rows.append(row | trial.params)
    names = ["number", "state", "value", *(["cost"] if cost else []), "epochs", "seconds", "parameters", "baseline"]
    return pd.DataFrame(rows, columns=None if rows else [*names, "configuration"])
