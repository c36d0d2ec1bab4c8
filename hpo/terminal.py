"""The console that everything for people is printed on: what it is given is text, and text does nothing by itself."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from hpo.text import printable

if TYPE_CHECKING:
    from rich.progress import TextColumn


class TextConsole(Console):
    """A console that takes no markup and no emoji codes, and prints control characters as their escapes.

    Styles are given as `rich.text.Text`. So a name, title or error that comes from a store or a file can neither
    change the style of what follows, nor fail as wrong markup, nor send commands to the terminal.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text as it is printed, so that its width is known."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of what is printed: every text on its way to the terminal comes through here."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control or text.isprintable() else Segment(printable(text), style)


def text_column(template: str) -> "TextColumn":
    """Return a column of a progress bar that shows a task's fields as text."""
    from rich.progress import TextColumn

    return TextColumn(template, markup=False)
