"""Use of a trained model: loaded, applied to files, written in other programs' formats."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hpo.results import formats, model_folder, predict
from hpo.results.model_folder import Classifier
from hpo.results.predict import Prediction
from hpo.service.trust import allow_code

__all__ = ["Classifier", "ExportedModel", "Prediction", "check_format", "export_model", "load_model", "predict_files"]


@dataclass(frozen=True)
class ExportedModel:
    """A model in another program's format."""

    path: Path
    difference: float
    """Largest difference of a logit from the network's, over random inputs."""


def load_model(folder: str | Path, *, python: str | Path | None = None) -> Classifier:
    """Return the trained network of a model folder; `python` is the file of a network in the user's own code.

    Raises: UsageError for a missing folder, DocumentError for a damaged one.
    """
    if python is not None:
        allow_code([python])
    return model_folder.load_model_folder(folder)


def predict_files(folder: str | Path, files: Iterable[str | Path], *, resize: bool = False) -> tuple[Prediction, ...]:
    """Return a prediction for each row of each file; `resize` scales images of another size to the network's.

    Raises: UsageError for a missing file or folder, DataError for what does not fit the network.
    """
    return tuple(predict.predict(load_model(folder), [Path(file) for file in files], resize=resize))


def check_format(format: str) -> None:
    """Check the name of a format. Raises: UsageError."""
    formats.check_model_format(format)


def export_model(folder: str | Path, format: str, output: str | Path | None = None) -> ExportedModel:
    """Write a trained network, preprocessing included, as onnx, torchscript or pt2; check that its outputs agree.

    Without `output` the file goes into the model folder. Raises: UsageError for an unknown format or a missing
    package, TrainingError if the outputs differ, HpoError if the file cannot be written.
    """
    check_format(format)
    path = Path(output) if output is not None else Path(folder) / f"model{formats.SUFFIXES[format]}"
    return ExportedModel(path, formats.export_model(load_model(folder), format, path))
