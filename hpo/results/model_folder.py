"""The model folder: weights, config, metrics, pictures and a card, enough to use and to evaluate the network."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import tomlkit
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpo import documents, plots, user_code
from hpo.artifacts import FolderFiles
from hpo.config import PythonNetwork, TrialConfig
from hpo.data import InputFormat, Parts, decode_rows
from hpo.errors import DataError, DocumentError, TrainingError, UsageError
from hpo.files import read as read_file
from hpo.models import build_model
from hpo.results.export import Export, to_toml
from hpo.results.inputs_table import check_inputs
from hpo.results.model_card import model_card
from hpo.results.retrain import Trained
from hpo.text import one_line
from hpo.training.dataset import resized

BATCH_ROWS = 1000
"""Rows that are given to the network at once."""
WEIGHTS, CONFIG, METRICS = "model.safetensors", "config.toml", "metrics.json"


class Classifier(nn.Module):
    """A trained network with its preprocessing: [N, C, H, W] or [N, F] of raw numbers -> [N, classes] logits.

    Raw numbers are those of the data: 0..255 for pixels, measures as they stand in the table.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, content: dict[str, Any], inputs: InputFormat, image_size: int | None = None
    ) -> None:
        """Take what a model folder's table [inputs] holds. Raises: KeyError, TypeError, ValueError for less."""
        super().__init__()
        self.image_size = image_size
        """Width and height that images are scaled to before the network; None for no scaling."""
        self.network = network
        self.inputs = inputs
        """How files, arrays and tables become the network's input rows."""
        self.kind, self.input_shape, self.scale = inputs.kind, inputs.shape, inputs.scale
        self.classes = tuple(str(name) for name in content["classes"])
        """Names of the outputs, in their order."""
        self.metrics: dict[str, Any] = {}
        """Scores on the test rows and more, as in metrics.json; empty for a network that was not tested."""
        shape = (1, -1, 1, 1) if self.kind == "images" else (1, -1)
        self.register_buffer("mean", torch.tensor(content["mean"], dtype=torch.float32).view(shape))
        self.register_buffer("std", torch.tensor(content["std"], dtype=torch.float32).view(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, classes] of raw numbers [N, *input_shape]."""
        x = (x.float() / self.scale - self.mean) / self.std
        logits: Tensor = self.network(x if self.image_size is None else resized(x, self.image_size))
        return logits

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return probabilities, float64 [N, classes]; columns are in the order of `classes`, rows sum to 1.

        X holds raw inputs, decoded as training decoded its rows: a path or paths of images, .npz, .csv or .parquet
        files; a DataFrame with the table's columns; or an array [N, F], [N, H, W], [N, C, H, W] or [N, H, W, C].
        Raises: UsageError for missing files, DataError for what does not fit the network and for NaN in arrays.
        """
        return self.probabilities(decode_rows(X, self.inputs))

    def predict(self, X: Any) -> NDArray[np.str_]:
        """Return the name of the most probable class of each row: texts [N]. X is as in `predict_proba`."""
        names: NDArray[np.str_] = np.array(self.classes)[self.predict_proba(X).argmax(1)]
        return names

    @torch.inference_mode()
    def probabilities(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return probabilities, float64 [N, classes], of decoded rows: float32 [N, *input_shape].

        Raises: DataError where the network's outputs are not finite.
        """
        was_training = self.training
        self.eval()
        try:
            batches = torch.split(torch.from_numpy(rows), BATCH_ROWS)
            logits = torch.cat([self(batch.to(self.mean.device)) for batch in batches])
        finally:
            self.train(was_training)
        result: NDArray[np.float64] = logits.double().softmax(1).cpu().numpy()
        wrong = np.flatnonzero(~np.isfinite(result).all(1))
        if len(wrong):
            raise DataError(
                f"row {wrong[0] + 1}: must be in the range of the training's rows, got outputs of the "
                f"network that are no numbers ({len(wrong)} of {len(rows)} rows). Correct the row."
            )
        return result


def write_model_folder(folder: Path, export: Export, trained: Trained, metrics: dict[str, Any]) -> None:
    """Write a model folder. Raises: TrainingError if it cannot be written."""
    run, parts = trained.run, trained.parts
    files = FolderFiles(folder)
    weights = {name: value.detach().cpu().contiguous() for name, value in run.model.state_dict().items()}
    try:
        files.write(WEIGHTS, safetensors.torch.save(weights))
        files.write(CONFIG, (to_toml(export) + _inputs(parts)).encode())
        network = export.config.model
        if isinstance(network, PythonNetwork):  # beside the weights, which are useless without it
            path, source = user_code.source_of(network.python, network.digest)
            files.write(path.name, source)
        files.write(METRICS, (json.dumps(metrics, indent=2) + "\n").encode())
        files.write("learning_curve.png", plots.learning_curve(metrics["curves"]))
        files.write("confusion_matrix.png", plots.confusion(metrics["confusion"], parts.info.classes))
        files.write("model_card.md", model_card(export, parts.info, metrics).encode())
        for left in folder.glob(".unfinished-*.safetensors"):
            left.unlink(missing_ok=True)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written: {error.strerror or error}. Choose another -o.") from error


def classifier_of(trained: Trained) -> Classifier:
    """Return the network of a training with its preprocessing, in eval mode, without a folder."""
    run, parts = trained.run, trained.parts
    inputs = InputFormat.of(parts.info, parts.encoding)
    network = build_model(run.config.model, run.data.input_shape, len(parts.info.classes), seed=0)
    network.load_state_dict({name: value.cpu() for name, value in run.model.state_dict().items()})
    return Classifier(network, _content(parts), inputs, run.config.image_size).eval()


def _content(parts: Parts) -> dict[str, Any]:
    """Return what the table [inputs] holds beside the columns of a table."""
    info = parts.info
    return {
        "kind": info.kind,
        "shape": list(info.input_shape),
        "classes": list(info.classes),
        "scale": info.scale,
        "mean": parts.mean.tolist(),
        "std": parts.std.tolist(),
        **InputFormat.of(info, parts.encoding).to_dict(),
    }


def _inputs(parts: Parts) -> str:
    table = tomlkit.table()
    table.comment("what the network takes: (x / scale - mean) / std")
    for key, value in _content(parts).items():
        table.add(key, value)
    if "image_fit" in table:
        table["image_fit"].comment("image files of another size: exact = refused, crop = cropped and scaled")
    if parts.encoding is not None:
        columns = tomlkit.aot()
        for column in parts.encoding.to_list():
            row = tomlkit.table()
            row.update(column)
            columns.append(row)
        table.add("columns", columns)
    document = tomlkit.document()
    document.add("inputs", table)
    return "\n" + tomlkit.dumps(document)


def load_model_folder(folder: str | Path) -> Classifier:
    """Return the trained network of a model folder, in eval mode, with its preprocessing and its class names.

    Raises: UsageError if there is no such folder, DocumentError if a file in it is missing or damaged.
    """
    path = Path(folder)
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder. `hpo train FILE -o {path}` writes one.")
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise DocumentError(f"{path}: must be a model folder, got one without {name}. Train it again.")
    content = documents.read(path / CONFIG).content
    where = f"{path / CONFIG}"
    config = TrialConfig.from_dict(content.get("config", {}), f"{where}: config")
    table = check_inputs(content.get("inputs"), f"{where}: inputs")
    try:
        inputs = InputFormat.from_dict(table, config.data)
        shape = config.input_shape(inputs.shape)
        weights = _read_weights(path / WEIGHTS, config, shape, len(table["classes"]))
        network = build_model(config.model, shape, len(table["classes"]), seed=0)
        network.load_state_dict(weights)
        classifier = Classifier(network, table, inputs, config.image_size)
    except (KeyError, TypeError, ValueError) as error:
        raise DocumentError(
            f"{where}: inputs: must be what `hpo train` wrote, got {one_line(repr(error))}. Train it again."
        ) from error
    except (safetensors.SafetensorError, RuntimeError, OSError) as error:
        raise DocumentError(
            f"{path / WEIGHTS}: must be the weights of {config.summary()}, got others or a damaged file "
            f"({one_line(str(error))[:200]}). Train it again."
        ) from error
    classifier.metrics = _read_metrics(path / METRICS)
    return classifier.eval()


def _read_weights(path: Path, config: TrialConfig, shape: tuple[int, ...], classes: int) -> dict[str, Tensor]:
    """Return the weights of a network, all finite, before memory is taken for the network itself.

    Raises: DocumentError, RuntimeError, OSError, SafetensorError.
    """
    if not isinstance(config.model, PythonNetwork):
        with torch.device("meta"):
            needed = sum(value.nbytes for value in build_model(config.model, shape, classes).state_dict().values())
        if needed > path.stat().st_size:
            raise RuntimeError(f"{needed:,} bytes are needed, it has {path.stat().st_size:,}")
    weights = safetensors.torch.load(read_file(path))
    for name, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise DocumentError(f"{path}: {one_line(name)}: must be finite numbers, got others. Train it again.")
    return weights


def _read_metrics(path: Path) -> dict[str, Any]:
    """Return the scores of a model folder; empty for one without. Raises: DocumentError if the file is damaged."""
    if not path.is_file():
        return {}
    content = documents.read_json(path)
    if not isinstance(content, dict):
        raise DocumentError(f"{path}: must be a JSON object, got {type(content).__name__}. Train it again.")
    return content


def curves(trained: Trained) -> dict[str, list[float]]:
    """Return a training's curves by name; without validation where that was trained on."""
    figures = (
        ("train_accuracy", "train_loss")
        if trained.with_validation
        else (
            "train_accuracy",
            "train_loss",
            "validation_accuracy",
            "validation_loss",
        )
    )
    rows = [dataclasses.asdict(result) for result in trained.run.history]
    return {name: [row[name] for row in rows] for name in figures}
