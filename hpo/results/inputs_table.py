"""The table [inputs] of a model folder, checked: what a network takes, and what its outputs are called."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from hpo import documents
from hpo.config.fields import Count, Finite, Positive
from hpo.errors import DocumentError
from hpo.text import one_line


@dataclass(frozen=True)
class _Column:
    __pydantic_config__ = ConfigDict(extra="forbid")
    name: str
    median: Finite | None = None
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.median is None and not self.categories:
            raise ValueError("columns must have a median or categories, got neither.")


@dataclass(frozen=True)
class _Inputs:
    __pydantic_config__ = ConfigDict(extra="ignore")
    kind: Literal["images", "table"]
    shape: tuple[Count, ...]
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    scale: Positive
    mean: tuple[Finite, ...]
    std: tuple[Positive, ...]
    image_fit: Literal["exact", "crop"] | None = None
    reshape: bool | None = None
    feature_names: tuple[str, ...] | None = None
    columns: tuple[_Column, ...] | None = None

    def __post_init__(self) -> None:
        rank, entries = (3, self.shape[0]) if self.kind == "images" else (1, math.prod(self.shape))
        if len(self.shape) != rank:
            raise ValueError(f"shape: must have {rank} sizes for {self.kind}, got {len(self.shape)}.")
        if math.prod(self.shape) >= 2**31:
            raise ValueError(f"shape: must have less than 2**31 numbers, got {self.shape}.")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != entries:
                raise ValueError(f"{name}: must have {entries} numbers, got {len(values)}.")
        for name in self.classes:
            if self.classes.count(name) > 1:
                raise ValueError(f'classes: must differ from each other, got "{one_line(name)}" twice.')
        if self.columns is not None and self.kind == "table":
            features = sum(len(column.categories) or 1 for column in self.columns)
            if features != entries or len({column.name for column in self.columns}) != len(self.columns):
                raise ValueError(f"columns: must be different and become {entries} numbers, got {features}.")


def check_inputs(content: Any, where: str) -> dict[str, Any]:
    """Return a table [inputs] if it is one. Raises: DocumentError, one line for each rule that it breaks."""
    if not isinstance(content, dict):
        got = "none" if content is None else type(content).__name__
        raise DocumentError(f"{where}: must be the table [inputs] that `hpo train` writes, got {got}. Train it again.")
    documents.check(_Inputs, content, where)
    return content
