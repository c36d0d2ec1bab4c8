"""What is dangerous with content of others is done in one module each, which makes it safe; nowhere else."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache

import pytest

from tests.test_structure import trees

DECODING, ARTIFACTS = "hpo/data/decoding.py", "hpo/artifacts.py"
GATES: dict[str, str] = {
    r"(.*\.)?Image\.open": DECODING,
    r"(np|numpy)\.(load|fromfile|memmap|genfromtxt|loadtxt)": DECODING,
    r"(pd|pandas)\.read_(csv|parquet|excel|json|html|xml|table|feather|hdf|orc|sql)": DECODING,
    r"(.*\.)?(rmtree|copytree|make_archive|unpack_archive|removedirs)": ARTIFACTS,
    r"yaml(\..*)?": "hpo/plain_yaml.py",
    r"tomllib(\..*)?": "hpo/documents.py",
    r"sys\.executable": "hpo/interpreter.py",
    r"exec|compile|importlib\.util(\..*)?|.*\.exec_module": "hpo/user_code.py",
    r"Console|rich\.console\.Console\(|TextColumn": "hpo/terminal.py",
    r"(.*\.)?from_markup|markup=True|emoji=True|rich\.(panel|prompt|markdown|tree)(\..*)?": "",
    r"(.*\.)?(pickle|cPickle|cloudpickle|dill|joblib|shelve|marshal)(\..*)?|allow_pickle=True|.*\.read_pickle": "",
    r"torch\.(load|hub|package)(\..*)?": "",
    r"torch\.jit\.load|torch\.export\.load": "hpo/results/formats.py",  # reads back what it has just written
    r"eval|os\.(system|popen)|shell=True|extractall": "",
    r"(urllib\.request|requests|httpx|http\.client)(\..*)?|(.*\.)?urlopen": "",
}
"""What is dangerous, as a pattern of its name, and the module that may do it; "" for none."""


def uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield what a module imports, calls and names by dots, and its keyword arguments, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, each.name) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{each.name}") for each in node.names)
        elif isinstance(node, ast.Attribute):
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, f"{k.arg}={ast.unparse(k.value)}") for k in node.keywords)
            if isinstance(node.func, ast.Name):
                yield node.lineno, node.func.id


@cache
def all_uses() -> list[tuple[str, list[tuple[int, str]]]]:
    """Return name and uses of each module of hpo."""
    return [(name, list(uses(tree))) for name, tree in trees()]


def outside(name: str, used: Iterable[tuple[int, str]]) -> list[str]:
    """Return what a module does that is another one's to do."""
    return [
        f"{name}:{line}: {use} {f'is for {gate}' if gate else 'is for no module'}"
        for line, use in used
        for pattern, gate in GATES.items()
        if re.fullmatch(pattern, use) and name != gate
    ]


def test_what_is_dangerous_is_done_in_its_module_alone() -> None:
    broken = [each for name, used in all_uses() for each in outside(name, used)]
    assert broken == []


def test_every_gate_is_used() -> None:
    """A pattern that fits nothing in its own module has been mistyped, or the module has changed."""
    used = {
        pattern
        for name, found in all_uses()
        for _, use in found
        for pattern, gate in GATES.items()
        if gate == name and re.fullmatch(pattern, use)
    }
    assert used == {pattern for pattern, gate in GATES.items() if gate}


@pytest.mark.parametrize(
    "line",
    [
        "from PIL import Image; Image.open(path)",
        "import PIL; PIL.Image.open(path)",
        "from PIL.Image import open",
        "np.load(path)",
        "import numpy; numpy.load(path)",
        "shutil.rmtree(path)",
        "from shutil import rmtree",
        "import yaml",
        "from yaml import safe_load",
        "console.print(text, markup=True)",
        "from rich.text import Text; Text.from_markup(text)",
        "Console()",
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "from torch import load",
        "np.savez(path, allow_pickle=True)",
        "pd.read_csv(path)",
        "exec(code)",
        "subprocess.run([sys.executable])",
        "subprocess.run(command, shell=True)",
    ],
)
def test_a_gate_that_is_passed_by_is_seen(line: str) -> None:
    assert outside("hpo/sample.py", uses(ast.parse(line)))
    harmless = ast.parse("from rich.console import Console\nre.compile(x); x: Console")
    assert not outside("hpo/sample.py", uses(harmless))
