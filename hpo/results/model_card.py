"""The model card: what a trained network is, what it was trained on, how good it is, and how to use it."""

from typing import Any

from hpo.config import EMA
from hpo.data import DataInfo
from hpo.results.export import Export
from hpo.text import one_line


def model_card(export: Export, info: DataInfo, metrics: dict[str, Any]) -> str:
    """Return the card of a network as Markdown; `metrics` are those of `evaluate_on_test`."""
    source, low_high = export.provenance, metrics["test_accuracy_interval"]
    lines = [
        f"# {export.config.summary()}",
        "",
        f"A classifier of {info.title}. {metrics['parameters']:,} parameters, trained for "
        f"{export.config.epochs} epochs on {metrics['trained_on_rows']:,} rows ({metrics['device']}, "
        f"{metrics['precision']}).",
        "",
        f"**Test accuracy {metrics['test_accuracy']:.4f}** (95 % interval {low_high[0]:.4f} to {low_high[1]:.4f}, "
        f"{metrics['test_rows']:,} rows that neither the search nor the training saw).",
    ]
    average = export.config.average
    if isinstance(average, EMA):
        text = "Its weights are an exponential moving average over the training steps"
        lines += ["", f"{text} (horizon {average.horizon:g} epochs)."]
    if metrics.get("seeds"):
        lines += ["", _seeds(metrics)]
    if "study" in source:
        lines += ["", one_line(f"It is {export.chosen}. Trial {source.get('trial')} of the study `{source['study']}`.")]
    lines += ["", "| class | precision | recall | f1 | rows |", "|---|---|---|---|---|"]
    lines += [
        f"| {_cell(c['name'])} | {c['precision']:.3f} | {c['recall']:.3f} | {c['f1']:.3f} | {c['rows']} |"
        for c in metrics["classes"]
    ]
    lines += [
        "",
        "![learning curve](learning_curve.png)",
        "",
        "![confusion matrix](confusion_matrix.png)",
        "",
        "```python",
        "import hpo",
        "",
        'model = hpo.load("THIS_FOLDER")  # a torch.nn.Module that takes raw numbers; model.classes names its outputs',
        "model.predict(X)  # names of classes; X: paths of files, arrays of raw numbers, a DataFrame",
        "```",
        "",
    ]
    return "\n".join(lines)


def _seeds(metrics: dict[str, Any]) -> str:
    seeds = metrics["seeds"]
    count, (low, high) = len(seeds["test_accuracies"]), seeds["mean_interval"]
    return (
        f"Over {count} seeds: mean {seeds['mean']:.4f} (95 % interval {low:.4f} to {high:.4f}); "
        "this is the network with the highest validation accuracy."
    )


def _cell(name: str) -> str:
    return one_line(name).replace("|", "\\|")
