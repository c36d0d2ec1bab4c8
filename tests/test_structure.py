"""The size rules and the plain names of hpo's code. Exceptions are listed here, each with its reason."""

import ast
from collections.abc import Iterator
from functools import cache

from tests.helpers.documents import ROOT

LINES, METHODS, PARAMETERS = 300, 20, 5
VAGUE = {"found", "told", "said", "own", "there"}
"""Variables of these names do not say what they hold."""

LARGE_CLASSES: set[str] = {"hpo/training/epoch.py: Run"}
"""One epoch of training is to be written as one function from top to bottom, which takes this class apart."""
MANY_PARAMETERS: set[str] = {"hpo/store/studies.py: create"}
"""A study is made of six parts, all required, and any number of attributes. (Commands of `hpo/cli` take keywords.)"""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def trees() -> list[tuple[str, ast.Module]]:
    """Return name and syntax tree of each module of hpo."""
    paths = sorted((ROOT / "hpo").rglob("*.py"))
    return [(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))) for path in paths]


def functions(tree: ast.Module) -> Iterator[Function]:
    """Yield every function and method of a module, nested ones included."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def is_command(function: Function) -> bool:
    """Say whether a function is a Typer command or callback."""
    called = (d.func for d in function.decorator_list if isinstance(d, ast.Call))
    return any(isinstance(f, ast.Attribute) and f.attr in ("command", "callback") for f in called)


def is_kernel(function: Function) -> bool:
    """Say whether a function is a kernel of Triton, which knows no parameters by name alone."""
    return any(isinstance(d, ast.Attribute) and d.attr == "jit" for d in function.decorator_list)


def positional(function: Function) -> list[str]:
    """Return the names of the parameters that can be passed by position, without self and cls."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return [name for name in names if name not in ("self", "cls")]


def assigned(tree: ast.Module) -> set[str]:
    """Return the names of all variables and parameters of a module."""
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names | {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}


def test_modules_are_short() -> None:
    lengths: dict[str, object] = {}
    for name, _ in trees():
        lines = len((ROOT / name).read_text(encoding="utf-8").splitlines())
        if lines > LINES:
            lengths[name] = lines
    assert lengths == {}


def test_classes_are_small() -> None:
    counts: dict[str, object] = {}
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                methods = sum(isinstance(part, Function) for part in node.body)
                if methods > METHODS:
                    counts[f"{name}: {node.name}"] = methods
    assert {name: counts[name] for name in counts.keys() - LARGE_CLASSES} == {}


def test_functions_take_few_parameters_by_position() -> None:
    many: dict[str, object] = {}
    for name, tree in trees():
        for function in functions(tree):
            parameters = positional(function)
            if len(parameters) > PARAMETERS and not (is_command(function) or is_kernel(function)):
                many[f"{name}: {function.name}"] = parameters
    assert {name: many[name] for name in many.keys() - MANY_PARAMETERS} == {}


def test_variables_have_plain_names() -> None:
    vague: dict[str, object] = {name: names for name, tree in trees() if (names := assigned(tree) & VAGUE)}
    assert vague == {}


def test_the_benchmarks_are_short_too() -> None:
    long = [p.name for p in (ROOT / "benchmarks").glob("*.py") if len(p.read_text().splitlines()) > LINES]
    assert long == []


def test_a_rule_that_is_broken_is_seen() -> None:
    """The rules can fail: a sample that breaks each."""
    tree = ast.parse("class A:\n    def f(self, a, b, c, d, e, g): found = a\n")
    [function] = functions(tree)
    assert len(positional(function)) == 6 and not is_command(function) and assigned(tree) & VAGUE == {"found"}
    command = ast.parse("@app.command()\ndef run(a, b, c, d, e, f): ...")
    assert is_command(next(functions(command)))
    assert is_kernel(next(functions(ast.parse("@triton.jit\ndef add(a, b, c, d, e, f): ..."))))
    assert not is_kernel(function)
