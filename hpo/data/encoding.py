"""Tables of mixed columns as numbers: missing numbers become the median, texts become one column per category.

scikit-learn fits and transforms; what it learned - medians, categories - is kept as plain data beside a model.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.errors import DataError

MAX_CATEGORIES = 50
"""A column with more different texts than this, in more than half of its rows, is a name or an identifier."""
MISSING = "(missing)"
"""The category of a text that is missing."""


@dataclass(frozen=True)
class Column:
    """How a column becomes numbers: by its median where it is missing, or by its categories."""

    name: str
    median: float | None = None
    """None for a column of texts."""
    categories: tuple[str, ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether the column holds categories."""
        return self.median is None

    def to_dict(self) -> dict[str, Any]:
        """Return the column as JSON types."""
        learned = {"categories": list(self.categories)} if self.is_text else {"median": self.median}
        return {"name": self.name} | learned


@dataclass(frozen=True)
class Encoding:
    """How rows of a table become rows of numbers."""

    columns: tuple[Column, ...]

    @staticmethod
    def fit(train: Any, whole: Any) -> "Encoding":
        """Learn medians from the training rows, categories from the whole training part; both are DataFrames."""
        from sklearn.impute import SimpleImputer

        numbers = [name for name in whole.columns if _is_number(whole[name])]
        medians: dict[str, float] = {}
        if numbers:
            values = _finite_or_nan(train[numbers].to_numpy(dtype=np.float64, na_value=np.nan))
            imputer = SimpleImputer(strategy="median", keep_empty_features=True).fit(values)
            medians = dict(zip(numbers, np.nan_to_num(imputer.statistics_).tolist(), strict=True))
        return Encoding(
            tuple(
                Column(name, median=medians[name])
                if name in medians
                else Column(name, categories=tuple(sorted(set(_texts(whole[name])))))
                for name in whole.columns
            )
        )

    @property
    def all_numbers(self) -> bool:
        """Whether no column holds texts."""
        return not any(column.is_text for column in self.columns)

    @cached_property
    def _transformer(self) -> Any:
        """scikit-learn's transformer with the kept medians and categories, for frames of float64 and text columns."""
        import pandas as pd
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import OneHotEncoder

        steps = []  # one for each run of columns of a kind, so that the columns keep their order
        for i, (is_text, run) in enumerate(groupby(self.columns, key=lambda column: column.is_text)):
            columns = list(run)
            encoder = (
                OneHotEncoder(
                    categories=[np.array(column.categories, dtype=object) for column in columns],
                    handle_unknown="ignore",
                    sparse_output=False,
                )
                if is_text
                else SimpleImputer(strategy="median")
            )
            steps.append((f"run{i}", encoder, [column.name for column in columns]))
        # Fitted to one row that has what was learned: the median of a single value is the value.
        row = {c.name: [c.categories[0]] if c.is_text else [c.median] for c in self.columns}
        return ColumnTransformer(steps, sparse_threshold=0).fit(pd.DataFrame(row))

    def apply(self, frame: Any, where: str = "table") -> NDArray[np.float32]:
        """Return rows as float32 [N, features]. Raises: DataError, at `where`, for a missing column or a text."""
        import pandas as pd

        content: dict[str, Any] = {}
        for column in self.columns:
            if column.name not in frame.columns:
                columns = ", ".join(map(str, frame.columns[:8]))
                raise DataError(f'{where}: must have a column "{column.name}", got {columns}.')
            values = frame[column.name]
            if values.ndim != 1:
                raise DataError(f'{where}: must have one column "{column.name}", got {values.shape[1]}.')
            if column.is_text:
                content[column.name] = np.array(_as_categories(values, column), dtype=object)
                continue
            try:
                content[column.name] = _finite_or_nan(values.to_numpy(dtype=np.float64, na_value=np.nan))
            except (TypeError, ValueError) as error:
                raise DataError(f'{where}: column "{column.name}" must be numbers, got {error}.') from error
        if len(frame) == 0:
            raise DataError(f"{where}: must have rows, got none.")
        with np.errstate(over="ignore"):
            rows: NDArray[np.float32] = self._transformer.transform(pd.DataFrame(content)).astype(np.float32)
        if not np.isfinite(rows).all():
            row, feature = np.argwhere(~np.isfinite(rows))[0]
            name = [c.name for c in self.columns for _ in range(len(c.categories) if c.is_text else 1)][feature]
            raise DataError(
                f'{where}: column "{name}" must be numbers below 3e38, got {frame[name].iloc[row]} in row {row + 1}.'
            )
        return rows

    def to_list(self) -> list[dict[str, Any]]:
        """Return the encoding as JSON types."""
        return [column.to_dict() for column in self.columns]

    @staticmethod
    def from_list(content: list[dict[str, Any]]) -> "Encoding":
        """Return the encoding that `to_list` gave. Raises: KeyError, TypeError for anything else."""
        return Encoding(tuple(Column(c["name"], c.get("median"), tuple(c.get("categories", ()))) for c in content))


def _finite_or_nan(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), values, np.nan)


def _texts(values: Any) -> list[str]:
    return [MISSING if missing else str(value) for value, missing in zip(values, values.isna(), strict=True)]


def _as_categories(values: Any, column: Column) -> list[str]:
    """Return texts; whole numbers that pandas made floats, as beside missing ones, by their category without ".0"."""
    texts, known = _texts(values), set(column.categories)
    short = [text.removesuffix(".0") for text in texts]
    return [s if text not in known and s in known else text for text, s in zip(texts, short, strict=True)]


def _is_number(values: Any) -> bool:
    import pandas as pd

    return bool(pd.api.types.is_numeric_dtype(values))


def feature_count(frame: Any) -> int:
    """Return the number of features that a row of a DataFrame becomes."""
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
