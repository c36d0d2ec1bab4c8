"""Tables of mixed columns as numbers: missing numbers become the median, texts become one column per category.

What is learned from the data - medians, categories - is plain data, so that it can be kept with a model.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.errors import DataError

MAX_CATEGORIES = 50
"""A column with more different texts than this, in more than half of its rows, is a name or an id."""
MISSING = "(missing)"


@dataclass(frozen=True)
class Column:
    """How a column becomes numbers: by its median where it is missing, or by its categories."""

    name: str
    median: float | None = None
    categories: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the column as JSON types."""
        learned = {"categories": list(self.categories)} if self.median is None else {"median": self.median}
        return {"name": self.name} | learned


@dataclass(frozen=True)
class Encoding:
    """How rows of a table become rows of numbers."""

    columns: tuple[Column, ...]

    @staticmethod
    def fit(train: Any, whole: Any) -> "Encoding":
        """Learn medians from the training rows; categories are those of the whole training part."""
        from sklearn.impute import SimpleImputer

        columns = []
        for name in whole.columns:
            if _is_number(whole[name]):
                values = train[[name]].to_numpy(dtype=np.float64)
                known = bool(np.isfinite(values).any())
                median = float(SimpleImputer(strategy="median").fit(values).statistics_[0]) if known else 0.0
                columns.append(Column(name, median=median))
            else:
                columns.append(Column(name, categories=tuple(sorted(set(_texts(whole[name]))))))
        return Encoding(tuple(columns))

    def apply(self, frame: Any, where: str = "table") -> NDArray[np.float32]:
        """Return rows as float32 [N, features]. Raises: DataError, at `where`, for a missing column or a text."""
        from sklearn.preprocessing import OneHotEncoder

        parts = []
        for column in self.columns:
            if column.name not in frame.columns:
                raise DataError(f'{where}: must have a column "{column.name}", got {", ".join(frame.columns[:8])}.')
            if column.median is None:
                encoder = OneHotEncoder(
                    categories=[list(column.categories)], handle_unknown="ignore", sparse_output=False, dtype=np.float32
                )
                texts = np.array(_texts(frame[column.name]), dtype=object).reshape(-1, 1)
                parts.append(encoder.fit(_one_of(column)).transform(texts))
                continue
            try:
                values = frame[column.name].to_numpy(dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise DataError(f'{where}: column "{column.name}" must be numbers, got {error}.') from error
            filled = np.where(np.isfinite(values), values, column.median)
            parts.append(filled.astype(np.float32).reshape(-1, 1))
        found: NDArray[np.float32] = np.concatenate(parts, axis=1)
        return found

    def to_list(self) -> list[dict[str, Any]]:
        """Return the encoding as JSON types."""
        return [column.to_dict() for column in self.columns]

    @staticmethod
    def from_list(content: list[dict[str, Any]]) -> "Encoding":
        """Return the encoding that `to_list` gave. Raises: KeyError, TypeError for anything else."""
        return Encoding(tuple(Column(c["name"], c.get("median"), tuple(c.get("categories", ()))) for c in content))


def _one_of(column: Column) -> NDArray[Any]:
    return np.array([[category] for category in column.categories], dtype=object)


def _texts(values: Any) -> list[str]:
    return [MISSING if missing else str(value) for value, missing in zip(values, values.isna(), strict=True)]


def _is_number(values: Any) -> bool:
    import pandas as pd

    return bool(pd.api.types.is_numeric_dtype(values))


def feature_count(frame: Any) -> int:
    """Return how many numbers a row becomes."""
    return sum(1 if _is_number(frame[name]) else len(set(_texts(frame[name]))) for name in frame.columns)


def check_columns(where: str, frame: Any) -> None:
    """Refuse columns that no network can learn from. Raises: DataError."""
    import pandas as pd

    for name in frame.columns:
        values = frame[name]
        if _is_number(values):
            continue
        texts = values.dropna().astype(str)
        numbers = pd.to_numeric(texts, errors="coerce")
        broken = texts[numbers.isna()]
        if 0 < len(broken) < 0.5 * len(texts):
            row = int(broken.index[0]) + 1
            raise DataError(
                f'{where}: column "{name}" must be numbers, got "{broken.iloc[0]}" in row {row}. '
                "Correct it, leave it empty, or put the column into `ignore`."
            )
        different = texts.nunique()
        if different > MAX_CATEGORIES and different > 0.5 * len(texts):
            raise DataError(
                f'{where}: column "{name}" must be numbers or categories, got {different} different texts in '
                f"{len(texts)} rows. Put it into `ignore`."
            )
