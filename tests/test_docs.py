"""The documentation is true: the reference is current, and every command works as printed."""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.command import forked_program, hpo

ROOT = Path(__file__).parent.parent
GUIDES = tuple(
    f"docs/guides/{name}.md"
    for name in (
        "spaces",
        "recipes",
        "data",
        "objectives",
        "python_code",
        "engines",
        "workers",
        "clusters",
        "reliability",
        "dashboard",
    )
)
"""The guides in the site's order, in which their commands are run."""
PAGES = ("docs/tutorial.md", "README.md", *GUIDES)
PROSE = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md"))
)

# Commands of the pages that are not run here, each for a reason.
ELSEWHERE = {
    "make ": "it is what runs the tests",
    "pip ": "installing is what CI begins with",
    "hpo dashboard": "it serves until it is stopped: test_browser",
    "hpo watch": "test_terminal",
    "hpo doctor resume": "test_end_to_end",
    "hpo predict best photo.png": "test_predict, with images of the right size",
    "hpo studies copy mine --to postgresql": "test_study_admin, with a real Postgres",
    "hpo run --space ann_fashion --study large": "there is no cluster: test_ray, test_launchers",
    "hpo studies show large": "the same",
    "hpo logs large": "the same",
    "export HPO_STORAGE=postgresql": "there is no such database",
    "hpo trials void first_try 17": "there are not so many trials: test_study_admin",
}


def test_the_reference_is_current() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from make_reference import reference  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    assert (ROOT / "docs" / "reference.md").read_text() == reference(), "run: python docs/make_reference.py"


def commands(page: str) -> list[str]:
    """Return the lines of a page's shell blocks, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.mark.docs
@pytest.mark.timeout(900)
@pytest.mark.parametrize("pages", [PAGES[:2], GUIDES], ids=["tutorial, README", "guides"])
def test_every_command_works_as_printed(pages: tuple[str, ...], tmp_path: Path) -> None:
    """In the pages' order; on digits in the place of Fashion-MNIST, and fewer trials, for the time it takes."""
    programs, here = tmp_path / "programs", tmp_path / "here"
    for folder in (programs, here):
        folder.mkdir()
    forked_program(programs)
    installed = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "COLUMNS": "120"}
    environment.pop("HPO_STORAGE", None)
    ran = 0
    for line in dict.fromkeys(line for page in pages for line in commands(page)):
        if any(line.startswith(prefix) for prefix in ELSEWHERE):
            continue
        command = re.sub(r"--trials \d+", "--trials 4", line.replace("ann_fashion", "ann_digits"))
        if command.startswith("hpo run") and "--trials" not in command and "--recipe" not in command:
            command += " --trials 4"
        if command.startswith("hpo confirm"):
            command += " --top 2 --seeds 2"
        if command.startswith(("hpo run", "hpo confirm")):
            command += " --workers 1"
        if command.startswith("hpo studies delete"):
            command += " --yes"
        # The first is the program that was installed; the others start at once.
        environment["PATH"] = f"{programs}:{installed}" if ran else installed
        done = subprocess.run(command, shell=True, cwd=here, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        ran += 1
    assert ran >= 5


@pytest.mark.parametrize("page", PROSE)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert target.startswith("http") or ((ROOT / page).parent / target).exists(), target


def test_every_command_is_in_the_readme_or_a_guide() -> None:
    from hpo.cli.app import command_tree

    text = "\n".join((ROOT / page).read_text() for page in PAGES)
    for name in command_tree().commands:
        assert re.search(rf"`?hpo {re.escape(name)}\b", text), name


def test_every_guide_is_listed() -> None:
    assert sorted(GUIDES) == sorted(page for page in PROSE if page.startswith("docs/guides/"))


@pytest.mark.parametrize("page", [page for page in PROSE if page.startswith("docs/design")])
def test_every_name_of_the_design_exists(page: str) -> None:
    """A dotted name is a module, or a name at the top level of a module (and of a class in it)."""
    for name in re.findall(r"`(hpo(?:\.\w+)+)", (ROOT / page).read_text()):
        assert exists(name), name


def test_the_map_of_the_design_is_complete() -> None:
    text = (ROOT / "docs" / "design.md").read_text()
    for path in sorted((ROOT / "hpo").iterdir()):
        if path.suffix == ".py" and path.stem != "__main__":
            assert re.search(rf"^  {path.name} ", text, flags=re.MULTILINE), path.name
        if (path / "__init__.py").exists():
            assert re.search(rf"^  {path.name}/ ", text, flags=re.MULTILINE), path.name


def exists(name: str) -> bool:
    """Return whether a dotted name is a package, a module, or a name that a module or class of it defines."""
    parts = name.split(".")
    for size in range(len(parts), 0, -1):
        stem = ROOT.joinpath(*parts[:size])
        path = next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.exists()), None)
        if path is not None:
            break
    else:
        return False
    body: list[ast.stmt] = ast.parse(path.read_text()).body
    for part in parts[size:]:
        node = next((node for node in body if part in defined(node)), None)
        if node is None:
            return False
        body = getattr(node, "body", [])
    return True


def defined(node: ast.stmt) -> list[str]:
    """Return the names that a statement defines."""
    match node:
        case ast.FunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.Assign():
            return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


@pytest.mark.parametrize("page", [page for page in PROSE if not page.startswith(".github")])
def test_every_option_in_a_block_exists(page: str) -> None:
    """Also in the blocks whose commands are not run, for they need another machine, a password, or a user's data."""
    from hpo.cli.app import command_tree

    blocks = re.findall(r"```(?:sh)?\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    for line in (line.partition("  #")[0] for block in blocks for line in block.splitlines()):
        words = shlex.split(line) if line.startswith("hpo ") else []
        command: Any = command_tree()
        for word in words[1:]:
            command = getattr(command, "commands", {}).get(word, command)
        options = {option for parameter in command.params for option in parameter.opts}
        for word in words:
            assert not word.startswith("-") or word in options, line


def test_shell_lines_are_well_formed() -> None:
    for page in PAGES:
        for line in commands(page):
            shlex.split(line)


@pytest.mark.slow
def test_the_files_of_the_guide_to_python_code_work(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "guides" / "python_code.md").read_text()
    blocks = re.findall(r"```(?:python|toml)\n(# (\w+\.\w+)\n.*?)```", text, flags=re.DOTALL)
    assert {name for _, name in blocks} == {"my_models.py", "my_network.toml", "my_space.py", "related.toml"}
    for content, name in blocks:
        (tmp_path / name).write_text(content)
    for space in ("my_network", "related"):
        hpo("run", "--space", f"{space}.toml", "--trials", "2", "--workers", "1", folder=tmp_path)
