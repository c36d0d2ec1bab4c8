"""An audit as a table."""

from typing import TYPE_CHECKING

from rich.table import Table

from hpo import service

if TYPE_CHECKING:
    from hpo.service.audit import Audit, PrunerComparison


def audit_table(result: "Audit") -> Table:
    """Return what the pruned trials would have reached, the best first."""
    table = Table(box=None, pad_edge=False, caption_justify="left")
    for column in ("trial", "pruned at", "value then", "at the end", "over the best", "configuration"):
        left = column == "configuration"
        table.add_column(column, justify="left" if left else "right", no_wrap=not left)
    for trial in result.audited:
        numbers = (f"{trial.value_then:.4f}", f"{trial.value:.4f}", f"{trial.value - result.winner_value:+.4f}")
        table.add_row(str(trial.number), f"epoch {trial.pruned_at}", *numbers, trial.config.summary())
    missing = f"; {result.missing} trainings are missing" if result.missing else ""
    table.caption = (
        f"{service.audit.metric_label(result.metric)}; the best is trial {result.winner}, {result.winner_value:.4f}"
        f"{missing}"
    )
    return table


def pruner_table(comparison: "PrunerComparison") -> Table:
    """Return what each pruner would have kept and saved."""
    table = Table(box=None, pad_edge=False, caption_justify="left")
    for column in ("pruner", "trained to the end", "epochs", "saved", "the best"):
        left = column in ("pruner", "the best")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    for outcome in comparison.outcomes:
        table.add_row(
            outcome.name + (" (this study's)" if outcome.is_own else ""),
            f"{outcome.survivors} of {comparison.trials}",
            f"{outcome.epochs:,}",
            f"{100 * comparison.saved(outcome):.0f} %",
            "survives" if outcome.winner_survives else "is pruned",
        )
    table.caption = comparison.summary
    return table
