"""From files to labels: images, npz and CSV in; the class and all probabilities out."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hpo.errors import DataError, UsageError
from hpo.results.model_folder import Classifier

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
BATCH_ROWS = 1000


@dataclass(frozen=True)
class Prediction:
    """What a network says of one row."""

    file: str
    row: int
    """From 0; an image is row 0 of its file."""
    label: str
    probability: float
    probabilities: dict[str, float]


def predict(classifier: Classifier, paths: list[Path], resize: bool = False) -> Iterator[Prediction]:
    """Return a prediction for each row of each file; all files are read before the first one.

    With `resize`, images of another size are scaled to the network's.
    Raises: UsageError for missing files and unknown kinds, DataError for what does not fit the network.
    """
    inputs = [(path, read(path, classifier, resize)) for path in paths]
    for path, rows in inputs:
        yield from _of(classifier, path, rows)


@torch.inference_mode()
def _of(classifier: Classifier, path: Path, rows: NDArray[np.float32]) -> Iterator[Prediction]:
    batches = [classifier(torch.from_numpy(part)) for part in np.split(rows, range(BATCH_ROWS, len(rows), BATCH_ROWS))]
    for i, shares in enumerate(torch.cat(batches).softmax(1).tolist()):
        named = dict(zip(classifier.classes, shares, strict=True))
        best = max(named, key=lambda name: named[name])
        yield Prediction(str(path), i, best, named[best], named)


def read(path: Path, classifier: Classifier, resize: bool) -> NDArray[np.float32]:
    """Return a file's rows as float32 [N, *input_shape]. Raises: UsageError, DataError."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file.")
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return _image(path, classifier, resize)
    if suffix == ".npz":
        return _npz(path, classifier)
    if suffix == ".csv":
        return _csv(path, classifier)
    raise UsageError(f"{path}: must be an image ({', '.join(IMAGE_SUFFIXES)}), .npz or .csv.")


def _image(path: Path, classifier: Classifier, resize: bool) -> NDArray[np.float32]:
    from PIL import Image, UnidentifiedImageError

    if classifier.kind != "images":
        raise DataError(f"{path}: the network takes rows of {classifier.input_shape[0]} numbers, got an image.")
    channels, height, width = classifier.input_shape
    try:
        with Image.open(path) as opened:
            image = opened.convert("L" if channels == 1 else "RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{path}: cannot be decoded as an image: {error}.") from error
    if image.size != (width, height):
        if not resize:
            raise DataError(
                f"{path}: must be {width}x{height} pixels, got {image.width}x{image.height}. Use --resize to scale it."
            )
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    # 0..255 in an image file; digits of scikit-learn, for one, go to 16.
    pixels = np.asarray(image, dtype=np.float32).reshape(height, width, channels) * (classifier.scale / 255)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def _npz(path: Path, classifier: Classifier) -> NDArray[np.float32]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "x" not in arrays.files and len(arrays.files) != 1:
                raise DataError(f'{path}: must hold an array "x", got {", ".join(arrays.files) or "none"}.')
            x = arrays["x" if "x" in arrays.files else arrays.files[0]]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as npz without pickle: {error}.") from error
    return _shaped(path, x, classifier)


def _csv(path: Path, classifier: Classifier) -> NDArray[np.float32]:
    import pandas as pd

    try:
        frame = pd.read_csv(path)
        if classifier.encoding is not None:
            frame.columns = [str(column) for column in frame.columns]
            return classifier.encoding.apply(frame, str(path))
        x = frame.to_numpy(dtype=np.float32)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: must be a table of numbers with a header line, got {reason}.") from error
    return _shaped(path, x, classifier)


def _shaped(path: Path, x: NDArray[np.generic], classifier: Classifier) -> NDArray[np.float32]:
    shape = classifier.input_shape
    if x.shape == shape:
        x = x[None]
    if x.shape[1:] != shape and not (x.ndim > 1 and x[0].size == int(np.prod(shape))):
        expected = " x ".join(map(str, ("N", *shape)))
        raise DataError(f"{path}: must have the shape {expected}, got {' x '.join(map(str, x.shape))}.")
    if not np.issubdtype(x.dtype, np.number):
        raise DataError(f"{path}: must hold numbers, got {x.dtype}.")
    found = x.astype(np.float32).reshape(-1, *shape)
    if not np.isfinite(found).all():
        raise DataError(f"{path}: must hold finite numbers, got a missing or infinite one.")
    return found
