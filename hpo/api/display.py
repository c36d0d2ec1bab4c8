"""How studies and confirmations show themselves in a notebook: HTML without scripts, from numbers and escaped texts."""

import base64
import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

WIDTH, HEIGHT = 520, 150
"""Pixels of the picture of a search."""
MARGIN = 34


def page(title: str, lines: Sequence[str], table: "pd.DataFrame", picture: str = "") -> str:
    """Return a title, lines of text, a table and a picture (HTML or empty) as HTML."""
    texts = "".join(f"<p style='margin:0.2em 0'>{html.escape(line)}</p>" for line in lines if line)
    cells = table.apply(lambda column: column.map(lambda value: _text(value, str(column.name))))
    rows = cells.to_html(index=False, border=0, justify="left", escape=True)
    return f"<div><b>{html.escape(title)}</b>{texts}{picture}{rows}</div>"


def _text(value: Any, column: str) -> str:
    """Return a cell of a table: seconds with one decimal, other floats with four, nothing for a missing value."""
    import pandas as pd

    if pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:.1f}" if column == "seconds" else f"{value:.4f}"
    return str(value)


def best_so_far(values: Sequence[float], baseline: float | None, label: str) -> str:
    """Return a picture of the best value after each finished trial, as an SVG image; empty for fewer than two.

    `baseline` is drawn as a dashed line. The image carries no script and needs no network.
    """
    if len(values) < 2:
        return ""
    marks = [*values, *([] if baseline is None else [baseline])]
    low, high = min(marks), max(marks)
    span = (high - low) or 1.0

    def x(index: int) -> float:
        return MARGIN + 10 + (WIDTH - MARGIN - 20) * index / (len(values) - 1)

    def y(value: float) -> float:
        return HEIGHT - 26 - (HEIGHT - 46) * (value - low) / span

    path = f"M{x(0):.1f},{y(values[0]):.1f}" + "".join(
        f"H{x(i):.1f}V{y(value):.1f}" for i, value in enumerate(values) if i
    )
    style = "font-family='sans-serif' font-size='10' fill='#555'"
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{HEIGHT}'>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>",
        f"<path d='{path}' fill='none' stroke='#2563eb' stroke-width='2'/>",
        f"<text x='2' y='{y(high) + 3:.1f}' {style}>{high:.4f}</text>",
        f"<text x='2' y='{y(low) + 3:.1f}' {style}>{low:.4f}</text>",
        f"<text x='{MARGIN + 10}' y='{HEIGHT - 6}' {style}>best {html.escape(label)} after each finished trial (1 to "
        f"{len(values)}){'' if baseline is None else '; dashed: baseline'}</text>",
    ]
    if baseline is not None:
        parts.append(
            f"<path d='M{x(0):.1f},{y(baseline):.1f}H{x(len(values) - 1):.1f}' stroke='#f59e0b' "
            "stroke-dasharray='4 3'/>"
        )
    image = base64.b64encode("".join([*parts, "</svg>"]).encode()).decode()
    return f"<img alt='best value after each finished trial' src='data:image/svg+xml;base64,{image}'>"
