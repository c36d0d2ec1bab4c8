"""What a configuration is judged by on the validation rows; every metric is better when higher."""

from typing import Literal

Metric = Literal["accuracy", "balanced_accuracy", "macro_f1", "neg_log_loss"]
"""scikit-learn's `accuracy`, `balanced_accuracy`, `f1_macro` and `neg_log_loss`."""

LABELS: dict[Metric, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "neg_log_loss": "negative log loss",
}
"""What people are shown."""

WORST: dict[Metric, float] = {"accuracy": 0.0, "balanced_accuracy": 0.0, "macro_f1": 0.0, "neg_log_loss": -100.0}
"""What a training that diverged counts: finite, so that a sampler learns from it. A log loss is never
taken for worse than that."""


def metric_label(metric: Metric) -> str:
    """Return what the values of a study are, in words: "validation accuracy"."""
    return f"validation {LABELS[metric]}"


def format_difference(measured: str, value: float) -> str:
    """Return a difference of values in words: hundredths ("points") of shares, any other as it is."""
    shares = {metric_label(metric) for metric, worst in WORST.items() if worst == 0}
    return f"{100 * value:+.2f} points" if measured in shares else f"{value:+.4f}"
