"""Names of the metrics that a study can maximize on the validation rows; for all of them, higher is better.

This module names metrics; their values are computed by `hpo.training.metrics`.
"""

from typing import Literal

Metric = Literal["accuracy", "balanced_accuracy", "macro_f1", "neg_log_loss"]
"""scikit-learn's `accuracy`, `balanced_accuracy`, `f1_macro` and `neg_log_loss`."""

LABELS: dict[Metric, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "neg_log_loss": "negative log loss",
}
"""Names of the metrics to display."""

WORST: dict[Metric, float] = {"accuracy": 0.0, "balanced_accuracy": 0.0, "macro_f1": 0.0, "neg_log_loss": -100.0}
"""Value of a training that diverged: finite, so that a sampler learns from it. Lower values of the negative log loss
count as this one."""

BEST: dict[Metric, float] = {"accuracy": 1.0, "balanced_accuracy": 1.0, "macro_f1": 1.0, "neg_log_loss": 0.0}
"""Value that no training exceeds."""


def metric_label(metric: Metric) -> str:
    """Return the name to display for the values of a study, such as "validation accuracy"."""
    return f"validation {LABELS[metric]}"


def format_difference(metric: Metric | None, value: float) -> str:
    """Return a difference between values to display: of shares in points (hundredths), of others as a number.

    `metric` is None where it is not known.
    """
    is_share = metric is not None and WORST[metric] == 0
    return f"{100 * value:+.2f} points" if is_share else f"{value:+.4f}"
