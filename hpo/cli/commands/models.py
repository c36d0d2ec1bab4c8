"""`hpo predict` and `hpo export-model`: use the winner."""

import csv
import io
from pathlib import Path
from typing import Annotated

import typer

from hpo import service
from hpo.cli.console import err, out, print_json, print_text
from hpo.cli.options import AsJson, OwnCode, as_option
from hpo.cli.render.model import prediction_rows, prediction_table
from hpo.errors import UsageError


def predict(
    folder: Annotated[Path, typer.Argument(help="A folder that `hpo train` wrote.")],
    files: Annotated[list[Path], typer.Argument(help="Images, .npz, .csv or .parquet files.")],
    *,
    python: OwnCode = None,
    resize: Annotated[bool, typer.Option("--resize", help="Scale images of a wrong size.")] = False,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Predict the class of each row of files, with its probability."""
    if as_json and as_csv:
        raise UsageError("predict: one of --json and --csv is possible, got both.")
    predictions = service.predict.predict_files(folder, files, resize=resize)
    if as_json:
        print_json([vars(prediction) for prediction in predictions])
    elif as_csv:
        table = io.StringIO()
        csv.writer(table).writerows(prediction_rows(predictions))
        print_text(table.getvalue())
    else:
        out().print(prediction_table(predictions))


def export_model(
    folder: Annotated[Path, typer.Argument(help="A folder that `hpo train` wrote.")],
    *,
    to: Annotated[str, typer.Option(help="onnx, torchscript or pt2 (torch.export).")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file to write. [default: in the folder]")
    ] = None,
    python: OwnCode = None,
) -> None:
    """Convert a trained network, preprocessing included, to ONNX, TorchScript or pt2; check that outputs agree."""
    with as_option("--to"):
        service.predict.check_format(to)
    made = service.predict.export_model(folder, to, output)
    err().print(f"{made.path}: takes raw numbers, any number of rows; its outputs agree to {made.difference:.1g}")
