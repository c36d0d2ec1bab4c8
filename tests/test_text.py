"""Texts of the repository: complete, readable, valid."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LONGEST = 120
FOLDERS = ("hpo", "tests", "benchmarks", "docs", "examples", "search_spaces", "studies", ".github")
SUFFIXES = {".py", ".md", ".toml", ".yml", ".yaml"}
GITHUB = ROOT / ".github"
PRAGMA = re.compile(r"  # (type: ignore|noqa).*$")
"""Comments for tools; ruff does not count them either."""


def texts() -> Iterator[Path]:
    """Yield every file of text that people read."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and "fixtures" not in path.parts:
                yield path
    yield from (path for path in sorted(ROOT.iterdir()) if path.suffix in SUFFIXES or path.name == "Makefile")


def may_be_long(path: Path, line: str) -> bool:
    """Return whether a line is a row of a Markdown table, or has an address that cannot be wrapped."""
    return (path.suffix == ".md" and line.startswith("|")) or re.search(r"\w+://", line) is not None


def test_lines_have_at_most_120_characters() -> None:
    lines = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(PRAGMA.sub("", line)) > LONGEST and not may_be_long(path, line)
    ]
    assert lines == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


@pytest.mark.parametrize("name", ["LICENSE", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md"])
def test_what_a_repository_needs_is_there(name: str) -> None:
    assert (ROOT / name).read_text().strip()


def test_the_placeholder_address_stands_in_two_places() -> None:
    """CONTRIBUTING's release steps name them, and say that nothing else has to be changed."""
    places = {path.name for path in texts() if re.search(r"https://example\.org/hpo", path.read_text(encoding="utf-8"))}
    assert places == {"pyproject.toml", "mkdocs.yml", "CONTRIBUTING.md"}


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", sorted((GITHUB / "workflows").glob("*.yml"))),
        ("custom.github-workflows-require-timeout", sorted((GITHUB / "workflows").glob("*.yml"))),
        ("vendor.github-issue-forms", [GITHUB / "ISSUE_TEMPLATE" / name for name in ("bug.yml", "feature.yml")]),
        ("vendor.github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
    ],
)
def test_files_of_the_hosting_site_follow_their_schemas(schema: str, files: list[Path]) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert files and done.returncode == 0, done.stdout
