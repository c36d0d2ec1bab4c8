"""What the test split has shown of a trained model, and predictions, as tables."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from hpo.service.predict import Prediction


def print_test_scores(console: Console, metrics: dict[str, Any]) -> None:
    """Print the scores of each class, the test accuracy, and whether the score is what was promised."""
    table = Table(box=None, pad_edge=False)
    for column in ("class", "precision", "recall", "f1", "rows"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for c in metrics["classes"]:
        table.add_row(c["name"], f"{c['precision']:.3f}", f"{c['recall']:.3f}", f"{c['f1']:.3f}", str(c["rows"]))
    low, high = metrics["test_accuracy_interval"]
    console.print(table)
    console.print(
        Text.assemble(
            "\ntest accuracy ",
            (f"{metrics['test_accuracy']:.4f}", "bold"),
            f" (95 % interval {low:.4f} to {high:.4f}) on {metrics['test_rows']:,} rows; "
            f"balanced accuracy {metrics['test_balanced_accuracy']:.4f}, macro F1 {metrics['test_macro_f1']:.4f}",
        )
    )
    seeds = metrics.get("seeds")
    if seeds:
        low, high = seeds["mean_interval"]
        count = len(seeds["test_accuracies"])
        console.print(f"mean of {count} seeds {seeds['mean']:.4f} (95 % interval {low:.4f} to {high:.4f})")
    if metrics.get("promised_test_score"):
        console.print(_kept_promise(metrics))
        if shift := metrics.get("test_rows_differ"):
            console.print(_shift_text(shift))


def _kept_promise(metrics: dict[str, Any]) -> Text:
    """Return whether the score is within the promised interval; of several trainings, whether their mean is."""
    named = metrics["metric"] != "accuracy"
    if seeds := metrics.get("seeds"):
        low, high = seeds["promised_mean_test_score"]
        within = ("within", "") if seeds["mean_as_promised"] else ("OUTSIDE", "bold")
        which = f"their mean {metrics['metric']} {seeds['mean_test_score']:.4f}" if named else "their mean"
        return Text.assemble(f"{which} is ", within, f" the interval promised for it, {low:.4f} to {high:.4f}")
    low, high = metrics["promised_test_score"]
    within = ("within", "") if metrics["as_promised"] else ("OUTSIDE", "bold")
    which = f"{metrics['metric']} {metrics['test_score']:.4f}, " if named else ""
    return Text.assemble(which, within, f" the promised interval {low:.4f} to {high:.4f}")


def _shift_text(shift: dict[str, Any]) -> str:
    """Return by how much test rows that are not like those of training are harder or easier, and where."""
    low, high = (abs(bound) for bound in shift["interval"])
    kind = "harder" if shift["difference"] < 0 else "easier"
    classes = f": above all {', '.join(shift['classes'])}" if shift["classes"] else ""
    return (
        f"The test rows came with the data and are {kind} than those of training, by {abs(shift['difference']):.4f} "
        f"({min(low, high):.4f} to {max(low, high):.4f}){classes}. The network is not to blame."
    )


def prediction_table(predictions: "Sequence[Prediction]") -> Table:
    """Return predictions, one a row: the class, how sure it is, and the next class."""
    table = Table(box=None, pad_edge=False)
    for column in ("file", "row", "label", "probability", "next"):
        table.add_column(column, justify="right" if column in ("row", "probability") else "left")
    for p in predictions:
        second = sorted(p.probabilities, key=lambda name: -p.probabilities[name])[1:2]
        others = ", ".join(f"{name} {p.probabilities[name]:.3f}" for name in second)
        table.add_row(p.file, str(p.row), p.label, f"{p.probability:.3f}", others)
    return table


def prediction_rows(predictions: "Sequence[Prediction]") -> list[list[Any]]:
    """Return predictions as rows of CSV, the header first.

    Names that a spreadsheet would take for a formula get an apostrophe before them, as OWASP recommends.
    """
    classes = [_cell(name) for name in predictions[0].probabilities] if predictions else []
    rows: list[list[Any]] = [["file", "row", "label", "probability", *classes]]
    for p in predictions:
        shares = [f"{share:.6f}" for share in p.probabilities.values()]
        rows.append([_cell(p.file), p.row, _cell(p.label), f"{p.probability:.6f}", *shares])
    return rows


def _cell(text: str) -> str:
    """Return a text as a cell of CSV that is no formula; numbers, as classes may be called, stay what they are."""
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
