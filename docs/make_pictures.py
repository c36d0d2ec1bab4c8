"""Draws the README's pictures from the real thing: a terminal and a dashboard during a real study.

python docs/make_pictures.py        # wants Chromium; trains for some minutes
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyte
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.helpers.browser import open_page  # noqa: E402
from tests.helpers.terminal import Terminal  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
COLORS = {"brown": "yellow", "default": "default"}
SIZE = (110, 15)


def drawn_curves(shown: list[str]) -> int:
    """Return how many of the running trials have a curve to look at."""
    return sum(bool(re.match(r"trial \d+ .* ([4-9]|1\d)/20 ", line)) for line in shown)


def svg(screen: pyte.Screen, lines: int, title: str) -> str:
    """Return a terminal's screen as SVG."""
    text = Text()
    for y in range(lines):
        for x in range(screen.columns):
            cell = screen.buffer[y][x]
            color = COLORS.get(cell.fg, cell.fg)
            if len(color) == 6 and color not in ("yellow",):
                color = f"#{color}"
            style = " ".join(filter(None, ["bold" if cell.bold else "", "" if color == "default" else color]))
            text.append(cell.data, style=style)
        text.append("\n")
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=screen.columns, file=nowhere)
        console.print(text, end="")
        return console.export_svg(title=title)


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        environment = {name: value for name, value in os.environ.items() if name != "HPO_STORAGE"}
        run = ["run", "--space", "ann_fashion", "--device", "cpu", "--trials", "60"]
        terminal = Terminal(*SIZE, *run, folder=folder, environment=environment)
        terminal.wait_for(
            lambda shown: any(re.search(r" 2\d/60 trials", line) for line in shown) and drawn_curves(shown) > 0, 600
        )
        drawn = svg(terminal.screen, SIZE[1], "hpo run --space ann_fashion")
        (PICTURES / "terminal.svg").write_text(drawn, encoding="utf-8")
        terminal.end(900)
        command = [sys.executable, "-m", "hpo", "dashboard", "--port", "0", "--read-only"]
        dashboard = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
        assert dashboard.stderr is not None
        address = dashboard.stderr.readline().partition("is shown at ")[2].split("/dashboard")[0]
        with open_page(1400, 1000) as page:
            page.goto(f"{address}/dashboard/studies/1")
            page.wait_for_selector(".main-svg")
            time.sleep(5)
            page.screenshot(path=PICTURES / "dashboard.png")
        dashboard.terminate()


if __name__ == "__main__":
    main()
