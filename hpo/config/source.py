"""Where the rows come from, and how validation is cut from them."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from hpo.config.fields import FROM_LIST, STRICT, Count


@dataclass(frozen=True)
class Split:
    """How validation is cut from the training split: stratified by class, by this seed."""

    __pydantic_config__ = STRICT
    validation: Annotated[int | float, Field(gt=0, allow_inf_nan=False)] = 0.2
    """Number of rows if >= 1, else the fraction of the training split."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    def __post_init__(self) -> None:
        if self.validation >= 1 and self.validation != int(self.validation):
            raise ValueError(f"validation must be a fraction below 1 or a whole number, got {self.validation}.")

    def rows_of(self, total: int) -> int:
        """Return how many of `total` training rows are validated on."""
        return int(self.validation) if self.validation >= 1 else math.ceil(self.validation * total)


@dataclass(frozen=True)
class OwnData:
    """Data of the user's own: a table, arrays, or a folder of images. Paths are best given whole."""

    __pydantic_config__ = STRICT
    csv: str | None = None
    """A CSV file with a header line, or a Parquet file; texts are categories, missing numbers become the median."""
    npz: str | None = None
    """Arrays x [N, F], [N, H, W], [N, C, H, W] or [N, H, W, C] and y [N], whole numbers from 0.

    Optional: x_test and y_test; classes and columns, texts that name the labels and the numbers of a row.
    """
    image_folder: str | None = None
    """A folder with one folder of images per class, or with two of those, train and test."""
    target: str | None = None
    """Column of a table that holds the class."""
    ignore: Annotated[tuple[str, ...], FROM_LIST] = ()
    """Columns of a table to leave out."""
    shape: Annotated[tuple[Count, ...], FROM_LIST] | None = None
    """What an npz file's rows are reshaped to, as [3, 32, 32]."""
    size: Count = 32
    """Width and height that images of a folder are scaled to."""
    grey: bool = False
    """Take images of a folder as grey ones."""
    skip_broken: bool = False
    """Leave out images that cannot be decoded."""
    test: str | None = None
    """File or folder of the same kind with the test rows."""
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Without test rows of its own: the part that is cut off for them, by class and a fixed seed; 0 for no test."""

    def __post_init__(self) -> None:
        given = [name for name in ("csv", "npz", "image_folder") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of csv, npz and image_folder is required, got {', '.join(given) or 'none'}.")
        for path in (self.path, self.test or ""):
            if "://" in path or "\0" in path:
                raise ValueError(f"must be the path of a local file or folder, got {path!r}.")
        if self.csv is not None and self.target is None:
            raise ValueError("target is required with csv: the column that holds the class. Add it.")

    @property
    def kind(self) -> Literal["csv", "npz", "image_folder"]:
        """Which of the three it is."""
        return "csv" if self.csv is not None else ("npz" if self.npz is not None else "image_folder")

    @property
    def path(self) -> str:
        """The file or folder."""
        return str(getattr(self, self.kind))

    @property
    def name(self) -> str:
        """The file's or folder's name, without its suffix."""
        return Path(self.path).stem


def _data_form(value: Any) -> str:
    return "own" if isinstance(value, dict | OwnData) else "name"


DataSource = Annotated[Annotated[str, Tag("name")] | Annotated[OwnData, Tag("own")], Discriminator(_data_form)]
"""A known data set by its name, or one's own."""
