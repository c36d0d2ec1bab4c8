"""`hpo export` and `hpo train`: keep the winner."""

from pathlib import Path
from typing import Annotated

import typer

from hpo.cli.options import Device, Storage, out, talk
from hpo.errors import HpoError


def export(
    study: Annotated[str, typer.Argument(help="A study of `hpo studies list`.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file to write. [default: stdout]")] = None,
    storage: Storage = None,
) -> None:
    """Write a study's best configuration, complete, with its provenance."""
    from hpo.results import export as exporting
    from hpo.store import study as studies
    from hpo.store.connect import open_store
    from hpo.store.url import configured

    store = open_store(configured(storage))
    config, provenance = exporting.best_config(store, studies.load(store, study))
    text = exporting.to_toml(config, provenance)
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise HpoError(f"{output}: cannot be written: {error.strerror}. Choose another -o.") from error
    talk().print(f"{output}: {config.summary()} (validation accuracy {provenance['validation_accuracy']:.4f})")


def train(
    file: Annotated[Path, typer.Argument(help="A file that `hpo export` wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write.")] = Path("model"),
    device: Device = "auto",
) -> None:
    """Train a configuration from its file alone; then read the test split, once, and say how good it is."""
    from hpo.results.export import read_config, to_toml

    config, provenance = read_config(file)

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from hpo.training.contract import EpochResult
    from hpo.training.devices import choose_device, use_one_thread
    from hpo.training.retrain import retrain, save

    use_one_thread()
    where = choose_device(device)
    console = talk()
    console.print(config.summary())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("training", total=config.epochs)

        def on_epoch(result: EpochResult) -> None:
            progress.update(task, advance=1, description=f"validation {result.validation_accuracy:.4f}")

        run, metrics = retrain(config, where, on_epoch, provenance.get("data_fingerprint"))
    save(run, metrics, to_toml(config, provenance), output)
    console.print(
        f"{output}: model.safetensors, config.toml, metrics.json "
        f"(validation accuracy {metrics['validation_accuracy']:.4f}, on {metrics['device']})"
    )
    out().print(f"test accuracy {metrics['test_accuracy']:.4f} on {metrics['test_rows']:,} rows")
