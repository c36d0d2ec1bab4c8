"""From files to labels: images, arrays and tables in; the class and all probabilities out."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpo.data import decode_file
from hpo.results.model_folder import Classifier


@dataclass(frozen=True)
class Prediction:
    """The class that a network gives to a row."""

    file: str
    row: int
    """From 0; an image is row 0 of its file."""
    label: str
    probability: float
    probabilities: dict[str, float]


def predict(classifier: Classifier, paths: list[Path], *, resize: bool = False) -> Iterator[Prediction]:
    """Return a prediction for each row of each file; all files are read before the first one.

    With `resize`, images of another size are scaled where training would not have done so.
    Raises: UsageError for missing files and unknown kinds, DataError for what does not fit the network.
    """
    decoded = [(path, decode_file(path, classifier.inputs, resize=resize)) for path in paths]
    for path, rows in decoded:
        for i, shares in enumerate(classifier.probabilities(rows).tolist()):
            probabilities = dict(zip(classifier.classes, shares, strict=True))
            label = max(probabilities, key=lambda name: probabilities[name])
            yield Prediction(str(path), i, label, probabilities[label], probabilities)
