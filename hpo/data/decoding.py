"""From files to rows, by one set of rules for training and prediction: images, arrays (npz), tables (CSV, Parquet)."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
ARRAY_SUFFIXES = (".npz",)
PARQUET_SUFFIXES = (".parquet", ".pq")
TABLE_SUFFIXES = (".csv", *PARQUET_SUFFIXES)

Shape = tuple[int, ...]


def open_image(path: Path, *, grey: bool) -> Any:
    """Return an image file as a PIL image of mode L or RGB, upright by its EXIF orientation.

    Raises: DataError if it cannot be decoded.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            return ImageOps.exif_transpose(opened).convert("L" if grey else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be decoded as an image ({' '.join(str(error).split())}).") from error


def crop_and_scale(image: Any, size: tuple[int, int]) -> Any:
    """Return a PIL image cropped around its middle to the ratio of `size` (width, height), then scaled to it."""
    from PIL import Image, ImageOps

    return ImageOps.fit(image, size, Image.Resampling.BILINEAR)


def pixels(image: Any) -> NDArray[np.uint8]:
    """Return a PIL image of mode L or RGB as uint8 [C, H, W]."""
    array = np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, -1)
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file by name; nothing is unpickled. Raises: DataError."""
    try:
        content = np.load(path, allow_pickle=False)
        if not isinstance(content, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array without a name, as in .npy files")
        with content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as npz without pickle: {reason}.") from error


def array_rows(x: NDArray[Any], where: str, shape: Shape | None = None) -> NDArray[Any]:
    """Return an array as rows [N, F] or images [N, C, H, W]: uint8 as it is, other numbers as float32.

    [N, H, W] are grey images; [N, H, W, C] with 1 or 3 channels is transposed, unless the second size is 1 or 3 too.
    With `shape` (of a row), images with the channels last are transposed to it, other rows are reshaped.
    Raises: DataError, at `where`, for what is not finite numbers, and for rows of another size.
    """
    if x.dtype != np.uint8:
        if not (np.issubdtype(x.dtype, np.number) or x.dtype == np.bool_) or np.iscomplexobj(x):
            raise DataError(f"{where}: must hold numbers, got {x.dtype}.")
        x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise DataError(f"{where}: must hold finite numbers, got a missing or infinite one.")
    if shape is not None:
        if x.ndim < 2 or int(np.prod(x.shape[1:])) != int(np.prod(shape)):
            raise DataError(f"{where}: shape: rows must fit {list(shape)}, got {list(x.shape[1:])}.")
        channels_last = len(shape) == 3 and x.shape[1:] == (*shape[1:], shape[0]) != shape
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if channels_last else x.reshape(-1, *shape)
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    if x.ndim not in (2, 4):
        raise DataError(f"{where}: must be [rows, numbers] or images [rows, channels, height, width], got {x.shape}.")
    return x


def read_table(path: Path, texts: frozenset[str] = frozenset()) -> Any:
    """Return a CSV or Parquet file as a DataFrame whose column names are texts.

    `texts` are columns that must not be taken for numbers, as those of a table read before, whose categories look
    like numbers in this file alone. Raises: DataError.
    """
    import pandas as pd

    try:
        if path.suffix.lower() in PARQUET_SUFFIXES:
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, low_memory=False)  # types by whole columns, not by chunks of rows
            numbers = [c for c in frame.columns if str(c) in texts and pd.api.types.is_numeric_dtype(frame[c])]
            numbers = [c for c in numbers if not pd.api.types.is_bool_dtype(frame[c])]
            if numbers:
                frame[numbers] = pd.read_csv(path, dtype=str, usecols=numbers)[numbers]
    except pd.errors.EmptyDataError:
        raise DataError(f"{path}: must be a table with a header line, got an empty file.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a table: {' '.join(str(error).split())}.") from error
    frame.columns = [str(column) for column in frame.columns]
    return frame
