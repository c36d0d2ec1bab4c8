"""Writes docs/reference.md from the code: every command, every field of every document.

python docs/make_reference.py            # a test checks that the page is current
"""

import ast
import inspect
import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from hpo import config, recipe, space
from hpo.cli.app import command_tree

PAGE = Path(__file__).parent / "reference.md"

KINDS = {
    "Size": "whole number >= 1; or a range, or choices",
    "Integer": "whole number; or a range, or choices",
    "Number": "number; or a range, or choices",
    "Probability": "0 <= number <= 1; or a range, or choices",
    "Share": "0 < number < 1; or a range, or choices",
    "Rate": "0 <= number < 1; or a range, or choices",
    "Flag": "true or false, or choices of them",
    "str": "text",
    "bool": "true or false",
    "int": "whole number",
    "float": "number",
    "Count": "whole number >= 1",
    "Positive": "number > 0",
    "NotNegative": "number >= 0",
}

DOCUMENTS: list[tuple[str, ModuleType, list[tuple[str, str]]]] = [
    (
        "Spaces",
        space,
        [
            ("SearchSpace", "top level"),
            ("MLPSpace", "[mlp]"),
            ("CNNSpace", "[cnn]"),
            ("ModelSpace", "[model]"),
            ("OptimizerSpace", "[optimizer]"),
            ("Hyperparameters", "[optimizer], and [optimizer.NAME] for one optimizer alone"),
            ("ScheduleSpace", "[schedule]"),
            ("AugmentSpace", "[augment]"),
            ("AverageSpace", "[average]"),
            ("Constraints", "[constraints]"),
            ("Baseline", "[[baselines]]"),
        ],
    ),
    (
        "Recipes",
        recipe,
        [
            ("StudyRecipe", "top level"),
            ("Budget", "[budget]"),
            ("Sampler", "[sampler]"),
            ("Pruner", "[pruner]"),
            ("Fidelity", "[fidelity]"),
            ("Checkpoints", "[checkpoints]"),
        ],
    ),
    (
        "Configs (exported files)",
        config,
        [
            ("TrialConfig", "[config]"),
            ("MLP", "[config.model], family mlp"),
            ("CNN", "[config.model], family cnn"),
            ("PythonNetwork", "[config.model], family python"),
            ("Augment", "[config.augment]"),
            ("SGD", "[config.optimizer], name sgd"),
            ("SGDMomentum", "[config.optimizer], name sgd_momentum"),
            ("Adam", "[config.optimizer], name adam"),
            ("AdamW", "[config.optimizer], name adamw"),
            ("RMSprop", "[config.optimizer], name rmsprop"),
            ("Constant", "[config.schedule], name none"),
            ("Cosine", "[config.schedule], name cosine"),
            ("OneCycle", "[config.schedule], name one_cycle"),
            ("StepDecay", "[config.schedule], name step"),
            ("Exponential", "[config.schedule], name exponential"),
            ("WarmupCosine", "[config.schedule], name warmup_cosine"),
            ("Plateau", "[config.schedule], name plateau"),
            ("NoAverage", "[config.average], name none"),
            ("EMA", "[config.average], name ema"),
            ("OwnData", "data of your own, in a space or a config"),
            ("Split", "[config.split], and split in a space"),
        ],
    ),
]


def reference() -> str:
    """Return the page."""
    parts = ["# Reference", "", "Generated from the code by `docs/make_reference.py`.", "", "## Commands", ""]
    parts += _commands(command_tree(), "hpo")
    parts += [
        "## Documents",
        "",
        "A *range* is `{ low = 1, high = 8 }`, with `step` or `log = true` where wanted; *choices* are",
        "`{ choices = [32, 64] }`. Per-layer fields take `shared = true`: one draw for all layers.",
        "",
    ]
    for title, module, sections in DOCUMENTS:
        parts += [f"### {title}", ""]
        for name, where in sections:
            parts += _section(module, name, where)
    return "\n".join(parts).rstrip() + "\n"


def _commands(group: Any, path: str) -> list[str]:
    lines: list[str] = []
    for name, command in group.commands.items():
        here = f"{path} {name}"
        if hasattr(command, "commands"):
            if getattr(command, "invoke_without_command", False):
                lines += _command(command, here)
            lines += _commands(command, here)
        else:
            lines += _command(command, here)
    return lines


def _command(command: Any, here: str) -> list[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden and p.name != "help"]
    usage = " ".join([here, *(_metavar(p) for p in arguments), *(["[OPTIONS]"] if options else [])])
    lines = [f"### `{here}`", "", inspect.cleandoc(command.help or ""), "", "```", usage, "```", ""]
    rows = [(_metavar(p), p.help or "") for p in arguments]
    for option in options:
        value = "" if option.is_flag else " " + (option.metavar or option.name.upper())
        default = option.default
        known = "" if default in (None, False) or callable(default) else f" [default: {default}]"
        rows.append((", ".join(option.opts) + value, (option.help or "") + known))
    if rows:
        lines += ["| argument or option | meaning |", "|---|---|"]
        lines += [f"| `{name}` | {_cell(text)} |" for name, text in rows]
        lines.append("")
    return lines


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper()) + ("..." if parameter.nargs == -1 else "")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _section(module: ModuleType, name: str, where: str) -> list[str]:
    """Return the fields of a class as its source states them: annotation, default, the text below."""
    module = sys.modules[getattr(module, name).__module__]
    tree = ast.parse(inspect.getsource(module))
    [definition] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    doc = " ".join((ast.get_docstring(definition) or "").split())
    lines = [
        *textwrap.wrap(f"**{where}** - {doc}", 120, break_on_hyphens=False),
        "",
        "| field | value | default | meaning |",
        "|---|---|---|---|",
    ]
    for i, node in enumerate(definition.body):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        after = definition.body[i + 1] if i + 1 < len(definition.body) else None
        text = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            text = after.value.value
        default = "required" if node.value is None else f"`{_default(ast.unparse(node.value))}`"
        if default == "`None`":
            default = ""
        kind = _kind(module, ast.unparse(node.annotation))
        if module.__name__.startswith("hpo.config."):  # where everything has been drawn
            kind = kind.replace("; or a range, or choices", "")
        lines.append(f"| `{node.target.id}` | {_cell(kind)} | {_cell(default)} | {_cell(text)} |")
    return [*lines, ""]


def _default(source: str) -> str:
    if "default_factory" in source or re.fullmatch(r"\w+\(\)", source):
        return "{}" if "list" not in source else "[]"
    return source.replace("'", '"').replace("False", "false").replace("True", "true")


def _kind(module: ModuleType, annotation: str) -> str:
    annotation = annotation.removesuffix(" | None")
    chosen = re.fullmatch(r"Field\[(\w+)\]", annotation)
    if chosen:
        return ", ".join(map(str, get_args(getattr(module, chosen[1])))) + "; or choices"
    literal = getattr(module, annotation, None)
    if get_args(literal) and all(isinstance(value, str) for value in get_args(literal)) and annotation not in KINDS:
        return ", ".join(get_args(literal))
    if annotation.startswith("Literal["):
        return annotation[len("Literal[") : -1].replace("'", "")
    inner = re.match(r"Annotated\[(.+?), ", annotation)
    if inner:
        bounds = re.findall(r"(ge|gt|le|lt)=(\d[\d.* ]*)", annotation)
        signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
        limits = " and ".join(f"{signs[sign]} {value}" for sign, value in bounds)
        within = re.search(r"within\(([^)]*)\)", annotation)
        if within and not limits:
            low, *high = [part for part in within[1].split(", ") if "open" not in part]
            limits = f"{'>' if 'open_low' in within[1] else '>='} {low}"
            if high:
                limits += f" and {'<' if 'open_high' in within[1] else '<='} {high[0]}"
            limits = f"({limits})"
        return " ".join(part for part in (KINDS.get(inner[1], inner[1]), limits) if part)
    repeated = re.fullmatch(r"(?:tuple|list)\[(\w+)(?:, \.\.\.)?\]", annotation)
    if repeated:
        return f"list of: {KINDS.get(repeated[1], repeated[1])}"
    return KINDS.get(annotation, "table" if annotation[:1].isupper() else annotation)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
