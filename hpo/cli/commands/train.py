"""`hpo train`: a configuration trained once more, and tested."""

from pathlib import Path
from typing import Annotated

import typer

from hpo import service
from hpo.cli.console import err, out, print_json
from hpo.cli.options import AsJson, Device, OwnCode, at_least_one, renamed
from hpo.cli.render.model import print_test_scores
from hpo.cli.render.progress import download_bar, training_bar


def _data_advice(value: str) -> str:
    return {"train+val": "Use --include-validation.", "train": "Leave it out: it is the default."}.get(
        value, "The data is the one that the file names."
    )


OldData = Annotated[
    str | None,
    typer.Option("--data", hidden=True, callback=renamed("--data", "--include-validation", _data_advice)),
]


def train(
    file: Annotated[Path, typer.Argument(help="A file that `hpo export` wrote.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write.")] = Path("model"),
    seeds: Annotated[
        int, typer.Option(metavar="N", help="Number of trainings, each with its own seed; the best is kept.")
    ] = 1,
    include_validation: Annotated[
        bool, typer.Option("--include-validation", help="Train on the validation rows too, for a final model.")
    ] = False,
    epochs: Annotated[int | None, typer.Option(metavar="E", help="Number of epochs. [default: the file's]")] = None,
    device: Device = "auto",
    python: OwnCode = None,
    as_json: AsJson = False,
    old_data: OldData = None,
) -> None:
    """Train a configuration from its file alone, then test it once on the test split.

    An interrupted training resumes.
    """
    at_least_one("--seeds", seeds)
    at_least_one("--epochs", epochs)
    plan = service.train.plan_training(
        service.train.TrainRequest(
            source=file,
            output=output,
            seeds=seeds,
            include_validation=include_validation,
            epochs=epochs,
            device=device,
        )
    )
    err().print(plan.config.summary())
    with download_bar(err()) as on_download, training_bar(err()) as on_epoch:
        trained = service.train.train_model(plan, on_download=on_download, on_epoch=on_epoch)
    if as_json:
        print_json({key: value for key, value in trained.metrics.items() if key != "curves"})
        return
    print_test_scores(out(), trained.metrics)
    err().print(f"{output}: weights, config, metrics, model card, learning curve, confusion matrix")
