"""The format of a network's inputs: new files, arrays and tables are read exactly as training read its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpo.config import OwnData
from hpo.data import decoding
from hpo.data.encoding import Encoding
from hpo.data.registry import DataInfo
from hpo.errors import DataError, UsageError
from hpo.text import one_line

ImageFit = Literal["exact", "crop"]


@dataclass(frozen=True)
class InputFormat:
    """How files, arrays and tables become a network's input rows."""

    kind: Literal["images", "table"]
    shape: tuple[int, ...]
    """(C, H, W) of an image, (F,) of a table's row."""
    scale: float = 1.0
    """The number of a white pixel: image files, which have 255 there, are converted to it."""
    image_fit: ImageFit = "exact"
    """An image file of another size: refused, or cropped around its middle and scaled as those of an image folder."""
    reshape: bool = False
    """Whether the rows of arrays were reshaped to `shape` on the user's request."""
    encoding: Encoding | None = None
    """How the columns of a table become numbers; None where the table is numbers already."""
    feature_names: tuple[str, ...] = ()
    """Names of the F numbers of a row, where they are known."""

    @staticmethod
    def of(info: DataInfo, encoding: Encoding | None = None) -> "InputFormat":
        """Return the format of a data set's rows; `encoding` is the one that was fitted to its training rows."""
        return InputFormat(
            kind=info.kind,
            shape=info.input_shape,
            scale=info.scale,
            encoding=encoding,
            feature_names=info.columns,
            **_defaults(info.user_data),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what is not in `kind`, `shape`, `scale` and `encoding` as JSON types; defaults are left out."""
        content: dict[str, Any] = {"image_fit": self.image_fit} if self.kind == "images" else {}
        if self.reshape:
            content["reshape"] = True
        if self.feature_names:
            content["feature_names"] = list(self.feature_names)
        return content

    @staticmethod
    def from_dict(content: Mapping[str, Any], source: str | OwnData | None) -> "InputFormat":
        """Return the format of a model folder's table [inputs]; what 0.1.0 left out follows from the data's `source`.

        Raises: KeyError, TypeError, ValueError for another content.
        """
        defaults = _defaults(source if isinstance(source, OwnData) else None)
        kind, fit = content["kind"], content.get("image_fit", defaults["image_fit"])
        if kind not in ("images", "table") or fit not in ("exact", "crop"):
            raise ValueError(f"unknown kind {kind!r} or image_fit {fit!r}")
        return InputFormat(
            kind=kind,
            shape=tuple(int(size) for size in content["shape"]),
            scale=float(content["scale"]),
            image_fit=fit,
            reshape=bool(content.get("reshape", defaults["reshape"])),
            encoding=Encoding.from_list(content["columns"]) if "columns" in content else None,
            feature_names=tuple(str(name) for name in content.get("feature_names", ())),
        )


def _defaults(source: OwnData | None) -> dict[str, Any]:
    return {
        "image_fit": "crop" if source is not None and source.kind == "image_folder" else "exact",
        "reshape": source is not None and source.shape is not None,
    }


def decode_file(path: Path, inputs: InputFormat, *, resize: bool = False) -> NDArray[np.float32]:
    """Return a file's rows as float32 [N, *shape], as training would have read them.

    With `resize`, images of another size are scaled where training would not have done so.
    Raises: UsageError for a missing file or an unknown kind, DataError for what does not fit.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file.")
    suffix = path.suffix.lower()
    if suffix in decoding.IMAGE_SUFFIXES:
        return _image(path, inputs, resize=resize)
    if suffix in decoding.ARRAY_SUFFIXES:
        return _array(_only_array(path), str(path), inputs)
    if suffix in decoding.TABLE_SUFFIXES:
        texts = {column.name for column in inputs.encoding.columns if column.is_text} if inputs.encoding else set()
        return _frame(decoding.read_table(path, frozenset(texts)), str(path), inputs)
    known = ", ".join(decoding.IMAGE_SUFFIXES)
    raise UsageError(f"{path}: must be an image ({known}), .npz, .csv or .parquet, got {suffix or 'no suffix'}.")


def decode_rows(x: Any, inputs: InputFormat, where: str = "X") -> NDArray[np.float32]:
    """Return inputs in memory as float32 [N, *shape], as training would have read them.

    `x` is a DataFrame; an array [N, F], [N, H, W], [N, C, H, W] or [N, H, W, C] of raw numbers; or a path or a
    sequence of paths, whose rows follow each other. Raises: UsageError, DataError, the latter also for NaN in arrays.
    """
    if isinstance(x, str | Path):
        return decode_file(Path(x), inputs)
    if isinstance(x, Sequence) and len(x) > 0 and all(isinstance(item, str | Path) for item in x):
        return np.concatenate([decode_file(Path(item), inputs) for item in x])
    if hasattr(x, "columns") and hasattr(x, "iloc"):
        return _frame(x.rename(columns=str), where, inputs)
    if hasattr(x, "detach"):  # a tensor, without importing torch
        x = x.detach().cpu().numpy()
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise DataError(f"{where}: must be an array, got rows of different lengths.") from error
    if array.dtype == object:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: must hold numbers, got {' '.join(str(error).split())}.") from error
    return _array(array, where, inputs)


def _image(path: Path, inputs: InputFormat, *, resize: bool) -> NDArray[np.float32]:
    from PIL import Image

    if inputs.kind != "images":
        raise DataError(f"{path}: the network takes rows of {inputs.shape[0]} numbers, got an image.")
    channels, height, width = inputs.shape
    image = decoding.open_image(path, grey=channels == 1)
    if inputs.image_fit == "crop":
        image = decoding.crop_and_scale(image, (width, height))
    elif image.size != (width, height):
        if not resize:
            raise DataError(
                f"{path}: must be {width}x{height} pixels, got {image.width}x{image.height}. Use --resize to scale it."
            )
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return decoding.pixels(image).astype(np.float32)[None] * np.float32(inputs.scale / 255)


def _only_array(path: Path) -> NDArray[Any]:
    """Return the array "x" of an npz file, or the only one that can be rows."""
    arrays = decoding.read_arrays(path)
    candidates = [name for name in arrays if name not in ("y", "classes", "columns")]
    if "x" not in arrays and len(candidates) != 1:
        raise DataError(f'{path}: must hold an array "x", got {", ".join(arrays) or "none"}.')
    return arrays["x" if "x" in arrays else candidates[0]]


def _array(x: NDArray[Any], where: str, inputs: InputFormat) -> NDArray[np.float32]:
    shape = inputs.shape
    if inputs.encoding is not None:
        return _table_array(x, where, inputs.encoding)
    if x.shape == shape:  # one row
        x = x[None]
    # A row of a single dimension is reshaped, for a flat row has only one reading: [C, H, W].
    flat = x.ndim == 2 and x.shape[1] == int(np.prod(shape))
    rows = decoding.array_rows(x, where, shape if flat or inputs.reshape else None)
    if len(rows) == 0:
        raise DataError(f"{where}: must have rows, got none.")
    if rows.shape[1:] != shape:
        expected = " x ".join(map(str, ("N", *shape)))
        raise DataError(f"{where}: must have the shape {expected}, got {' x '.join(map(str, x.shape))}.")
    return rows.astype(np.float32)


def _table_array(x: NDArray[Any], where: str, encoding: Encoding) -> NDArray[np.float32]:
    """Return the rows of a table whose columns are all numbers, given without their names."""
    import pandas as pd

    names = [column.name for column in encoding.columns]
    if not encoding.all_numbers:
        listed = ", ".join(names[:8])
        raise DataError(f"{where}: must be a table with the columns {listed}, got an array without names.")
    if x.ndim != 2 or x.shape[1] != len(names) or not np.issubdtype(x.dtype, np.number):
        raise DataError(f"{where}: must be numbers [N, {len(names)}], got {x.dtype} {list(x.shape)}.")
    return encoding.apply(pd.DataFrame(x, columns=names), where)


def _frame(frame: Any, where: str, inputs: InputFormat) -> NDArray[np.float32]:
    if inputs.encoding is not None:
        return inputs.encoding.apply(frame, where)
    if inputs.feature_names and set(inputs.feature_names) <= set(frame.columns):
        frame = frame[list(inputs.feature_names)]
    try:
        with np.errstate(over="ignore"):
            x = frame.to_numpy(dtype=np.float32, na_value=np.nan)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{where}: must be a table of numbers with a header line, got {reason}.") from error
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        name, value = one_line(str(frame.columns[column])), frame.iloc[row, column]
        raise DataError(f'{where}: column "{name}" must hold finite numbers below 3e38, got {value} in row {row + 1}.')
    return _array(x, where, inputs)
