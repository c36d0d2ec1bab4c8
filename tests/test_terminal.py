"""What people see: `hpo run` and `hpo watch` in a real pseudo-terminal."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.helpers.terminal import Terminal

pytestmark = pytest.mark.slow

SIZES = [(80, 24), (200, 50)]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "HPO_STORAGE": f"sqlite:///{tmp_path}/studies.db"}


@pytest.mark.parametrize(("columns", "lines"), SIZES)
def test_a_run_is_watched_and_leaves_a_summary(
    columns: int, lines: int, environment: dict[str, str], tmp_path: Path
) -> None:
    run = ["run", "--space", "ann_digits", "--trials", "20", "--workers", "2", "--device", "cpu"]
    terminal = Terminal(columns, lines, *run, folder=tmp_path, environment=environment)
    working = terminal.wait_for(
        lambda shown: (
            any(re.search(r"^trial \d+ .*\d+/30 .*[▁▂▃▄▅▆▇█]", line) for line in shown)
            and any(line.startswith("best: 0.") for line in shown)
        )
    )
    assert max(map(len, working)) <= columns
    header = next(line for line in working if line.startswith("ann_digits "))
    assert "digits" in header
    assert any(re.search(r"\d+/20 trials", line) for line in working)
    assert any(re.match(r"2 workers  .*cpu \d+ MB", line) for line in working)
    # A second terminal looks on, and changes nothing.
    other = Terminal(columns, lines, "watch", "ann_digits", folder=tmp_path, environment=environment)
    other.wait_for(lambda shown: any(line.startswith("best: ") for line in shown))
    assert terminal.end() == 0 and other.end() == 0
    for ended in (terminal, other):
        said = ended.scrollback()
        assert "rank" in said and "baseline: 64-32" in said
        assert "\x1b[?25l" in ended.raw.decode() and ended.raw.decode().rindex("\x1b[?25h") > ended.raw.decode().rindex(
            "\x1b[?25l"
        ), "the cursor must be given back"
    said = terminal.scrollback()
    assert "hpo confirm ann_digits" in said
    assert not any(re.match(r"2 workers  ", line) for line in said.splitlines()), "the live picture is gone"


def test_ctrl_c_in_a_terminal(environment: dict[str, str], tmp_path: Path) -> None:
    run = ["run", "--space", "ann_digits", "--trials", "500", "--workers", "1", "--device", "cpu"]
    terminal = Terminal(80, 24, *run, folder=tmp_path, environment=environment)
    terminal.wait_for(lambda shown: any(line.startswith("best: 0.") for line in shown))
    os.killpg(terminal.process.pid, signal.SIGINT)
    assert terminal.end(30) == 130
    said = "".join(terminal.scrollback().split())  # lines are wrapped anywhere, at spaces too
    assert "Traceback" not in said and "isstopped" in said and "Formore:hporun--studyann_digits" in said


def test_colours_can_be_declined(environment: dict[str, str], tmp_path: Path) -> None:
    run = ["run", "--space", "ann_digits", "--trials", "3", "--workers", "1", "--device", "cpu"]
    terminal = Terminal(80, 24, *run, folder=tmp_path, environment=environment | {"NO_COLOR": "1"})
    assert terminal.end() == 0
    assert not re.search(rb"\x1b\[[0-9;]*3[0-7]m", bytes(terminal.raw))
