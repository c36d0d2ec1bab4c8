"""Tables of documents and data sets."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from hpo.service.data import KnownData
    from hpo.service.spaces import KnownDocument


def document_table(rows: "Sequence[KnownDocument]") -> Table:
    """Return documents by name and title."""
    table = Table("name", "what", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row.name, row.title)
    return table


def data_table(rows: "Sequence[KnownData]") -> Table:
    """Return data sets, and whether they are in the cache."""
    table = Table(box=None, pad_edge=False)
    for column in ("name", "rows", "input", "classes", "here", "what"):
        table.add_column(column, justify="right" if column in ("rows", "classes") else "left")
    for row in rows:
        info = row.info
        shape = "x".join(map(str, info.input_shape))
        table.add_row(info.name, f"{sum(info.rows):,}", shape, str(len(info.classes)), row.state, info.title)
    return table


def data_json(rows: "Sequence[KnownData]") -> list[dict[str, Any]]:
    """Return data sets as JSON types."""
    return [
        {
            "name": row.info.name,
            "title": row.info.title,
            "input_shape": row.info.input_shape,
            "classes": row.info.classes,
            "training_rows": row.info.rows[0],
            "test_rows": row.info.rows[1],
            "state": row.state,
        }
        for row in rows
    ]
