"""TOML documents: looked up by name, read, and checked against a model; errors as *file: field: rule, got value*.

A name is looked up in `./search_spaces` (`./studies`) of the working directory, then in the package's
copy. A value that ends in `.toml` is a path.
"""

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from hpo import plain_yaml
from hpo.errors import DocumentError, UsageError, suggestion
from hpo.text import one_line

T = TypeVar("T")
Kind = Literal["space", "recipe"]
MAX_BYTES = 10_000_000
"""Most bytes of a document."""
FOLDERS: dict[Kind, str] = {"space": "search_spaces", "recipe": "studies"}
COMMANDS: dict[Kind, str] = {"space": "hpo spaces", "recipe": "hpo recipes"}


@dataclass(frozen=True)
class Document:
    """A TOML document as it was read: its name (the file's stem), where it lies, and its content."""

    name: str
    where: str
    content: dict[str, Any]


def folders(kind: Kind) -> Iterator[Path]:
    """Yield the folders that hold documents of a kind, the user's first."""
    yield Path(FOLDERS[kind])
    package = Path(__file__).resolve().parent
    for root in (package / "documents_copy", package.parent):
        if (root / FOLDERS[kind]).is_dir():
            yield root / FOLDERS[kind]


def known(kind: Kind) -> dict[str, Path]:
    """Return every document of a kind by name; the user's take precedence over the package's."""
    paths: dict[str, Path] = {}
    for folder in folders(kind):
        for path in sorted(folder.glob("*.toml")):
            paths.setdefault(path.stem, path)
    return paths


def find(kind: Kind, name: str) -> Document:
    """Read the document of this name, or at this path if it ends in `.toml`.

    Raises: UsageError for an unknown name or missing file, DocumentError for a file that is not TOML.
    """
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"{name}: no such file. `{COMMANDS[kind]} list` shows what can be named.")
        return read(path)
    documents = known(kind)
    if name not in documents:
        hint = suggestion(name, documents)
        raise UsageError(f'No {kind} named "{name}". {hint} Or give a path ending in .toml.')
    return read(documents[name])


def read(path: Path) -> Document:
    """Read one TOML file. Raises: DocumentError where it cannot be read or is not TOML."""
    return Document(path.stem, str(path), _parsed(path, "TOML", tomllib.loads))


def read_json(path: Path) -> Any:
    """Read one JSON file. Raises: DocumentError where it cannot be read or is not JSON."""
    return _parsed(path, "JSON", json.loads)


def read_yaml(path: Path) -> Any:
    """Read one YAML file of plain types; aliases are refused. Raises: DocumentError where it is no such file."""
    return _parsed(path, "YAML", plain_yaml.load)


def _parsed(path: Path, language: str, parse: Callable[[str], Any]) -> Any:
    """Return the content of a document. Raises: DocumentError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise DocumentError(f"{path}: must have at most {MAX_BYTES / 1e6:.0f} MB, got more.")
        parsed = parse(content.decode("utf-8"))
        json.dumps(parsed, default=str, ensure_ascii=False).encode("utf-8")  # no half characters, which JSON can name
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DocumentError(f"{path}: must be UTF-8 text, got byte {error.object[error.start]:#x}.") from error
    except RecursionError as error:
        raise DocumentError(f"{path}: must be nested less deeply.") from error
    except (TypeError, ValueError) as error:
        raise DocumentError(f"{path}: is not valid {language}: {one_line(str(error))[:200]}.") from error
    return parsed


MOST_TOLD = 10
"""Broken rules of a document that an error names."""
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def check(kind: type[T], content: Mapping[str, Any], where: str) -> T:
    """Build a model or dataclass from a document's content, strictly: no text is taken for a number.

    Raises: DocumentError with one line per broken rule, of the first ones.
    """
    try:
        # Strict mode takes lists for tuples only from JSON, which TOML's types map to one to one.
        built: T = _adapter(kind).validate_json(_as_json(content, where), strict=True)
    except ValidationError as error:
        lines = list(dict.fromkeys(f"{where}: {_explain(e, content)}" for e in error.errors()))
        more = len(lines) - MOST_TOLD
        if more > 0:
            lines[MOST_TOLD:] = [f"{where}: breaks {more} more rule{'s' if more > 1 else ''}."]
        raise DocumentError("\n".join(lines)) from None
    return built


def _as_json(content: Any, where: str) -> str:
    try:
        return json.dumps(content, default=str)
    except (TypeError, ValueError, RecursionError) as error:
        raise DocumentError(f"{where}: must be tables, lists, texts and numbers, got {type(error).__name__}.") from None


def dump(value: Any) -> dict[str, Any]:
    """Return a model or dataclass as plain JSON types; `check` reads it back equal."""
    content: dict[str, Any] = _adapter(type(value)).dump_python(value, mode="json")
    return content


def differences(name: str, before: Any, now: Any, where: tuple[str, str] = ("in the study", "now")) -> list[str]:
    """Return one line for each field in which two dumped documents differ; `where` labels the two values."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        return [line for k in keys for line in differences(f"{name}.{k}", before.get(k), now.get(k), where)]
    return [] if before == now else [f"{name}: {json.dumps(before)} {where[0]}, {json.dumps(now)} {where[1]}"]


class Section(BaseModel):
    """A table of a document: unknown keys are refused, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, content: Any) -> Any:
        if isinstance(content, dict):
            for key in content.keys() - cls.model_fields.keys():
                raise ValueError(f'unknown key "{one_line(key)}". {suggestion(key, cls.model_fields)}')
        return content


_TYPES = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "dataclass_type": "a table",
    "model_attributes_type": "a table",
    "finite_number": "a finite number",
}
_BOUNDS = {"greater_than": ">", "greater_than_equal": ">=", "less_than": "<", "less_than_equal": "<="}


def _path(error: ErrorDetails, content: Any) -> str:
    """Return the dotted path of the faulty field, without the union tags that pydantic puts into it."""
    parts = []
    for part in error["loc"]:
        inside = isinstance(content, dict) and part in content
        if inside or (isinstance(content, list) and isinstance(part, int) and part < len(content)):
            content = content[part]
            parts.append(str(part))
    if error["type"] == "missing":
        parts.append(str(error["loc"][-1]))
    return one_line(".".join(parts))


def _shown(value: Any) -> str:
    text = one_line(json.dumps(value, default=str))
    return text if len(text) <= 200 else f"{text[:200]}..."


def _explain(error: ErrorDetails, content: Any) -> str:
    field = _path(error, content)
    got = f"got {_shown(error['input'])}"
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        rule = "is required. Add it."
    elif kind in ("extra_forbidden", "unexpected_keyword_argument"):
        rule = "is not a known key. Remove it or fix its spelling."
    elif kind == "literal_error":
        rule = f"must be one of {context['expected']}, {got}."
    elif kind == "union_tag_invalid":
        field = ".".join(filter(None, [field, str(context["discriminator"]).strip("'")]))
        rule = f"must be one of {context['expected_tags']}, got {_shown(context['tag'])}."
    elif kind in _TYPES:
        rule = f"must be {_TYPES[kind]}, {got}."
    elif kind in _BOUNDS:
        rule = f"must be {_BOUNDS[kind]} {next(iter(context.values()))}, {got}."
    elif kind == "value_error":
        rule = f"{context['error']}"
    else:
        rule = f"{error['msg']}, {got}."
    return f"{field}: {rule}" if field else rule
