"""From files to rows, by one set of rules for training and prediction: images, arrays (npz), tables (CSV, Parquet).

Whatever is wrong with a file, it is a DataError here: nothing else in hpo opens images and arrays of others.
"""

import csv
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.errors import DataError
from hpo.machine import memory
from hpo.text import one_line

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""PIL's names of the formats that these suffixes stand for."""
ARRAY_SUFFIXES = (".npz",)
PARQUET_SUFFIXES = (".parquet", ".pq")
TABLE_SUFFIXES = (".csv", *PARQUET_SUFFIXES)

MOST_COLUMNS = 100_000
"""A wider table is refused before it is read: one of 20,000 columns takes 11 seconds to read and encode."""

Shape = tuple[int, ...]


def open_image(path: Path, *, grey: bool) -> Any:
    """Return an image file as a PIL image of mode L or RGB, upright by its EXIF orientation.

    Only the formats of `IMAGE_SUFFIXES` are tried, whatever the file is called: PIL knows others, which start programs.
    Raises: DataError if it cannot be decoded, or has more pixels than PIL takes for safe.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=IMAGE_FORMATS) as opened:
                return ImageOps.exif_transpose(opened).convert("L" if grey else "RGB")
    except Exception as error:  # of any kind, by what a damaged file brings the decoders to
        raise DataError(f"{path}: cannot be decoded as an image ({_reason(error)}).") from error


def crop_and_scale(image: Any, size: tuple[int, int]) -> Any:
    """Return a PIL image cropped around its middle to the ratio of `size` (width, height), then scaled to it."""
    from PIL import Image, ImageOps

    return ImageOps.fit(image, size, Image.Resampling.BILINEAR)


def pixels(image: Any) -> NDArray[np.uint8]:
    """Return a PIL image of mode L or RGB as uint8 [C, H, W]."""
    array = np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, -1)
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def read_arrays(path: Path, *, limit: int | None = None) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file by name; nothing is unpickled.

    `limit` is the most bytes that they may have together, by default half of the machine's memory.
    Raises: DataError for another file, a damaged one, and one that is larger.
    """
    limit = memory() // 2 if limit is None else limit
    try:
        content = np.load(path, allow_pickle=False)
        if not isinstance(content, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array without a name, as in .npy files")
        with content:
            assert content.zip is not None
            size = sum(int(member.file_size) for member in content.zip.infolist())
            if size > limit:
                raise ValueError(f"its arrays have {size / 1e9:,.3g} GB, more than half of the memory")
            arrays = {name: content[name] for name in content.files}
    except Exception as error:  # of any kind, by what a damaged file brings zipfile and NumPy to
        raise DataError(f"{path}: cannot be read as npz without pickle: {_reason(error)}.") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f'{path}: must hold arrays alone, got the file "{one_line(name)}".')
    return arrays


def _reason(error: Exception) -> str:
    return one_line(str(error))[:200] or type(error).__name__


def array_rows(x: NDArray[Any], where: str, shape: Shape | None = None) -> NDArray[Any]:
    """Return an array as rows [N, F] or images [N, C, H, W]: uint8 as it is, other numbers as float32.

    [N, H, W] are grey images; [N, H, W, C] with 1 or 3 channels is transposed, unless the second size is 1 or 3 too.
    With `shape` (of a row), images with the channels last are transposed to it, other rows are reshaped.
    Raises: DataError, at `where`, for what is not finite numbers, and for rows of another size.
    """
    if x.dtype != np.uint8:
        if not (np.issubdtype(x.dtype, np.number) or x.dtype == np.bool_) or np.iscomplexobj(x):
            raise DataError(f"{where}: must hold numbers, got {x.dtype}.")
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise DataError(f"{where}: must hold finite numbers, got a missing, infinite or too large one.")
    if 0 in x.shape[1:]:
        raise DataError(f"{where}: must hold numbers in each row, got the shape {list(x.shape)}.")
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
        with path.open("rb") as content:  # not the path: pandas takes some for addresses
            is_parquet = path.suffix.lower() in PARQUET_SUFFIXES
            count = _count_columns(content, is_parquet=is_parquet)
            if count > MOST_COLUMNS:
                raise ValueError(f"it has {count:,} columns, more than {MOST_COLUMNS:,}")
            frame = pd.read_parquet(content) if is_parquet else _read_csv(content, texts)
    except pd.errors.EmptyDataError:
        raise DataError(f"{path}: must be a table with a header line, got an empty file.") from None
    except Exception as error:  # of any kind, by what a damaged file brings pandas and Arrow to
        raise DataError(f"{path}: cannot be read as a table: {_reason(error)}.") from error
    names = [str(column) for column in frame.columns]
    frame.columns = pd.Index(names)
    for name, count in Counter(names).items():
        if "\0" in name:  # NumPy cuts it off
            raise DataError(f'{path}: names of columns must be texts, got "{one_line(name)}".')
        if count > 1:
            raise DataError(f'{path}: must have one column "{one_line(name)}", got {count}.')
    return frame


def _count_columns(content: Any, *, is_parquet: bool) -> int:
    """Return the number of a table's columns, from its head or foot alone."""
    if is_parquet:
        from pyarrow.parquet import read_schema

        count = len(read_schema(content).names)
    else:
        first = content.readline()
        count = len(next(csv.reader([first.decode(errors="replace")]), [])) if b'"' in first else first.count(b",") + 1
    content.seek(0)
    return count


def _read_csv(content: Any, texts: frozenset[str]) -> Any:
    import pandas as pd

    frame = pd.read_csv(content, low_memory=False)  # types by whole columns, not by chunks of rows
    numbers = [c for c in frame.columns if str(c) in texts and pd.api.types.is_numeric_dtype(frame[c])]
    numbers = [c for c in numbers if not pd.api.types.is_bool_dtype(frame[c])]
    if numbers:
        content.seek(0)
        frame[numbers] = pd.read_csv(content, dtype=str, usecols=numbers)[numbers]
    return frame
