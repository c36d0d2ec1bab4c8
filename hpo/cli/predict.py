"""`hpo predict` and `hpo export-model`: use the winner."""

from pathlib import Path
from typing import Annotated

import typer

from hpo.cli.options import AsJson, OwnCode, out, print_json, talk
from hpo.errors import UsageError


def predict(
    folder: Annotated[Path, typer.Argument(help="A folder that `hpo train` wrote.")],
    files: Annotated[list[Path], typer.Argument(help="Images, .npz, .csv or .parquet files.")],
    python: OwnCode = None,
    resize: Annotated[bool, typer.Option("--resize", help="Scale images of a wrong size.")] = False,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Say what a trained network makes of files: the class of each row and how sure it is."""
    if as_json and as_csv:
        raise UsageError("predict: one of --json and --csv is possible, got both.")

    from hpo.results.model_folder import load_model_folder
    from hpo.results.predict import predict as predicting

    found = list(predicting(load_model_folder(folder), files, resize=resize))
    if as_json:
        print_json([vars(prediction) for prediction in found])
    elif as_csv:
        import csv
        import sys

        writer = csv.writer(sys.stdout)
        classes = list(found[0].probabilities) if found else []
        writer.writerow(["file", "row", "label", "probability", *classes])
        for p in found:
            writer.writerow(
                [p.file, p.row, p.label, f"{p.probability:.6f}", *(f"{v:.6f}" for v in p.probabilities.values())]
            )
    else:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for column in ("file", "row", "label", "probability", "next"):
            table.add_column(column, justify="right" if column in ("row", "probability") else "left")
        for p in found:
            second = sorted(p.probabilities, key=lambda name: -p.probabilities[name])[1:2]
            others = ", ".join(f"{name} {p.probabilities[name]:.3f}" for name in second)
            table.add_row(p.file, str(p.row), p.label, f"{p.probability:.3f}", others)
        out().print(table)


def export_model(
    folder: Annotated[Path, typer.Argument(help="A folder that `hpo train` wrote.")],
    to: Annotated[str, typer.Option(help="onnx, torchscript or pt2 (torch.export).")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file to write. [default: in the folder]")
    ] = None,
    python: OwnCode = None,
) -> None:
    """Write a trained network, preprocessing included, in another program's format; check that it agrees."""
    from hpo.results import formats
    from hpo.results.model_folder import load_model_folder

    formats.check_model_format(to)
    path = output or folder / f"model{formats.SUFFIXES[to]}"
    difference = formats.export_model(load_model_folder(folder), to, path)
    talk().print(f"{path}: takes raw numbers, any number of rows; its outputs agree to {difference:.1g}")
