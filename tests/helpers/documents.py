"""The documents of this project."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SPACES = sorted(path.stem for path in (ROOT / "search_spaces").glob("*.toml"))
