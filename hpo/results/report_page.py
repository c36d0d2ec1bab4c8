"""The page of a report: its parts as HTML, with all that it needs inside."""

import base64
import gzip
import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template

import plotly
import plotly.graph_objects as go

_PAGE = Template((Path(__file__).parent / "report.html").read_text(encoding="utf-8"))

Tile = tuple[str, str]
"""A number as text, and what it is."""


@dataclass(frozen=True)
class Section:
    """A part of the page: a title, an explanation, a figure and HTML below it, each if there is one."""

    title: str
    text: str = ""
    html: str = ""
    name: str = ""
    """The figure's name in the page."""
    figure: go.Figure | None = None


def page(title: str, subtitle: str, tiles: Iterable[Tile], sections: Sequence[Section], footer: str) -> str:
    """Return a page as HTML: below 5 MB, its figures drawn when they are scrolled into view."""
    figures = {s.name: json.loads(s.figure.to_json()) for s in sections if s.figure is not None}
    return _PAGE.substitute(
        title=escaped(title),
        subtitle=escaped(subtitle),
        tiles="".join(
            f"<div class=tile><b>{escaped(value)}</b><span>{escaped(label)}</span></div>" for value, label in tiles
        ),
        sections="\n".join(_section(section) for section in sections),
        figures=json.dumps(figures).replace("</", "<\\/"),
        plotly=_plotly(),
        footer=escaped(footer),
    )


def _section(section: Section) -> str:
    figure = ""
    if section.figure is not None:
        height = int(section.figure.layout.height)
        figure = f'<div class=figure id="{section.name}" style="height:{height}px"></div>'
    title, text = escaped(section.title), escaped(section.text)
    return f"<section><h2>{title}</h2><p>{text}</p>{figure}{section.html}</section>"


@cache
def _plotly() -> str:
    """Return Plotly's library, compressed, as text: a third of its size; browsers unpack it themselves."""
    source = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    return base64.b64encode(gzip.compress(source.read_bytes(), 9)).decode()


def escaped(value: object) -> str:
    """Return a value as text in HTML."""
    return html.escape(str(value))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as HTML."""
    names = "".join(f"<th>{escaped(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{names}</tr>{lines}</table>"
