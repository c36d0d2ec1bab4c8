"""`hpo export` and `hpo train`: keep the winner."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.cli.options import AsJson, Device, OwnCode, Storage, StudyName, at_least_one, out, print_json, talk
from hpo.errors import HpoError, UsageError

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from hpo.config import TrialConfig
    from hpo.results.retrain import Trained


def export(
    study: StudyName,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file to write. [default: stdout]")] = None,
    format_: Annotated[str, typer.Option("--format", help="toml, json or yaml.")] = "toml",
    as_: Annotated[
        str, typer.Option("--as", help="config, or script: one readable PyTorch script without hpo.")
    ] = "config",
    trial: Annotated[
        int | None, typer.Option(metavar="N", help="This trial, such as another of a Pareto front. [default: the best]")
    ] = None,
    storage: Storage = None,
) -> None:
    """Write a study's winner, complete, with its provenance: the confirmed one, else the best trial by the metric."""
    from hpo.results import export as exporting
    from hpo.store import studies
    from hpo.store.database.connect import open_store
    from hpo.store.database.url import configured

    exporting.check_export_format(format_)
    if as_ not in ("config", "script"):
        raise UsageError(f'--as: must be config or script, got "{as_}".')
    store = open_store(configured(storage))
    found = exporting.winner(store, studies.load_study(store, study), trial)
    if as_ == "script":
        from hpo.results.script import to_script

        text = to_script(found.config, found.provenance)
    else:
        text = exporting.FORMATS[format_](found)
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise HpoError(f"{output}: cannot be written: {error.strerror}. Choose another -o.") from error
    talk().print(f"{output}: {found.config.summary()}\n{found.chosen}")


def train(
    file: Annotated[Path, typer.Argument(help="A file that `hpo export` wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write.")] = Path("model"),
    seeds: Annotated[
        int, typer.Option(metavar="N", help="Train so often, on different seeds; the best of them is kept.")
    ] = 1,
    rows: Annotated[
        str, typer.Option("--data", help="train, or train+val: the validation rows too, as the last step.")
    ] = "train",
    epochs: Annotated[int | None, typer.Option(metavar="E", help="Epochs. [default: the file's]")] = None,
    device: Device = "auto",
    python: OwnCode = None,
    as_json: AsJson = False,
) -> None:
    """Train a configuration from its file alone; then read the test split, once, and say how good it is.

    A training that was stopped or killed goes on where it was.
    """
    import dataclasses

    at_least_one("--seeds", seeds)
    at_least_one("--epochs", epochs)
    if rows not in ("train", "train+val"):
        raise UsageError(f'--data: must be train or train+val, got "{rows}".')
    with_validation = rows == "train+val"

    from hpo.results.export import Export, describe, read_config

    config, provenance = read_config(file)

    from hpo.cli.data import fetch_with_progress
    from hpo.results import model_folder, retrain, test_evaluation
    from hpo.training.devices import choose_device, use_one_thread

    use_one_thread()
    where = choose_device(device)
    changed = with_validation or (epochs is not None and epochs != config.epochs)
    config = dataclasses.replace(config, epochs=epochs or config.epochs)
    console = talk()
    console.print(config.summary())
    fetch_with_progress(config.data)
    parts = retrain.load_data(config, provenance.get("data_fingerprint"))
    runs = []
    for i in range(seeds):
        once = config if i == 0 else config.with_seed(retrain.further_seed(config.seed, i))
        runs.append(_train_once(once, parts, where, output, with_validation, console, f"{i + 1} of {seeds}"))
    kept, metrics = test_evaluation.evaluate_on_test(
        runs, None if changed else provenance.get("promised_test_accuracy")
    )
    model_folder.write_model_folder(output, Export(kept.run.config, provenance, describe(provenance)), kept, metrics)
    if as_json:
        print_json({key: value for key, value in metrics.items() if key != "curves"})
    else:
        _say(metrics, output, console)


def _train_once(
    config: "TrialConfig",
    parts: Any,
    device: "torch.device",
    output: Path,
    with_validation: bool,
    console: "Console",
    which: str,
) -> "Trained":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from hpo.config import metric_label
    from hpo.results.retrain import retrain
    from hpo.training.engine import EpochResult

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("training", total=config.epochs)

        def on_epoch(result: EpochResult) -> None:
            score = result.train_accuracy if with_validation else result.score(config.metric)
            name = "training accuracy" if with_validation else metric_label(config.metric)
            prefix = "" if which == "1 of 1" else f"seed {which}: "
            progress.update(task, advance=1, description=f"{prefix}{name} {score:.4f}")

        return retrain(config, parts, device, output, with_validation=with_validation, on_epoch=on_epoch)


def _say(metrics: dict[str, Any], output: Path, console: "Console") -> None:
    """Print what the test split has shown, and what the folder holds."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("class", "precision", "recall", "f1", "rows"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for c in metrics["classes"]:
        table.add_row(c["name"], f"{c['precision']:.3f}", f"{c['recall']:.3f}", f"{c['f1']:.3f}", str(c["rows"]))
    low, high = metrics["test_accuracy_interval"]
    out().print(table)
    out().print(
        f"\ntest accuracy [bold]{metrics['test_accuracy']:.4f}[/bold] "
        f"(95 % interval {low:.4f} to {high:.4f}) on {metrics['test_rows']:,} rows; "
        f"balanced accuracy {metrics['test_balanced_accuracy']:.4f}, macro F1 {metrics['test_macro_f1']:.4f}"
    )
    seeds = metrics.get("seeds")
    if seeds:
        low, high = seeds["mean_interval"]
        count = len(seeds["test_accuracies"])
        out().print(f"mean of {count} seeds {seeds['mean']:.4f} (95 % interval {low:.4f} to {high:.4f})")
    promise = metrics.get("promised_test_accuracy")
    if promise:
        within = "within" if metrics["as_promised"] else "[bold]OUTSIDE[/bold]"
        out().print(f"{within} the promised interval {promise[0]:.4f} to {promise[1]:.4f}")
    console.print(f"{output}: weights, config, metrics, model card, learning curve, confusion matrix")
