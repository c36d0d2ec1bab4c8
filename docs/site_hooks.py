"""MkDocs hooks: pages of the site that are made from other files, so that nothing stands in two places."""

import ast
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
COPIED = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
"""Pages that are files of the repository's root."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site."""
    for page, source in COPIED.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=re.sub(r"\]\(docs/", "](", text)))
    files.append(File.generated(config, "design/modules.md", content=modules()))
    return files


def modules() -> str:
    """Return a page with every module of hpo and the first sentence of its docstring."""
    lines = ["# All modules", "", "Made from the modules' docstrings when this site is built.", ""]
    for folder in sorted({path.parent for path in (ROOT / "hpo").rglob("*.py")}):
        package = ".".join(folder.relative_to(ROOT).parts)
        lines += [f"## `{package}`", "", subject(folder / "__init__.py"), "", "| module | subject |", "|---|---|"]
        for path in sorted(folder.glob("*.py")):
            if path.name != "__init__.py":
                lines.append(f"| `{path.stem}` | {subject(path)} |")
        lines.append("")
    return "\n".join(lines)


def subject(path: Path) -> str:
    """Return the first paragraph of a module's docstring, on one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split()).replace("|", "\\|")
