"""Documents: search spaces and study recipes, listed, shown, copied, compared, checked."""

from dataclasses import dataclass
from pathlib import Path

from hpo import data, documents, files
from hpo.documents import Kind
from hpo.errors import HpoError, UsageError
from hpo.grid import grid
from hpo.space import load_space
from hpo.suggesters import RandomSuggester

__all__ = [
    "DocumentText",
    "Kind",
    "KnownDocument",
    "SpaceCheck",
    "check_space",
    "compare_spaces",
    "copy_space",
    "list_documents",
    "show_document",
]


@dataclass(frozen=True)
class KnownDocument:
    """A space or recipe that has a name."""

    name: str
    title: str
    path: str


@dataclass(frozen=True)
class DocumentText:
    """A document as it is in its file."""

    path: str
    text: str


@dataclass(frozen=True)
class SpaceCheck:
    """A space in which nothing is wrong."""

    name: str
    example: str
    """A random configuration in one line."""
    grid_size: int | None
    """Configurations of the space as a grid; None if it cannot be one."""
    no_grid: str
    """Why the space cannot be a grid; empty if it can."""


def list_documents(kind: Kind) -> tuple[KnownDocument, ...]:
    """Return all documents of a kind, by name. Raises: DocumentError for one that cannot be read."""
    rows = []
    for name, path in sorted(documents.known(kind).items()):
        document = documents.read(path)
        rows.append(KnownDocument(name, str(document.content.get("title", "")), document.where))
    return tuple(rows)


def show_document(kind: Kind, name: str) -> DocumentText:
    """Return the text of the document of this name or path. Raises: UsageError, DocumentError."""
    where = documents.find(kind, name).where
    return DocumentText(where, Path(where).read_text(encoding="utf-8"))


def copy_space(name: str, source: str) -> Path:
    """Copy a space to `./search_spaces/NAME.toml`, to be edited; return the new file.

    Raises: UsageError for an unknown source or a name in use, HpoError if the file cannot be written.
    """
    text = show_document("space", source).text
    path = Path("search_spaces") / f"{name.removesuffix('.toml')}.toml"
    if path.exists():
        raise UsageError(f"{path}: exists already. Choose another name.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, text)
    except OSError as error:
        raise HpoError(f"{path}: cannot be written: {error.strerror}. Change to a folder of your own.") from error
    return path


def compare_spaces(one: str, other: str) -> list[str]:
    """Return one line for each field in which two spaces differ. Raises: UsageError, DocumentError."""
    first, second = load_space(one).identity(), load_space(other).identity()
    lines = documents.differences("space", first, second, (f"in {one}", f"in {other}"))
    return [line.removeprefix("space.") for line in lines]


def check_space(name: str) -> SpaceCheck:
    """Check a space: every field, its baselines, its data set, and that its networks fit the inputs.

    Raises: UsageError, DocumentError, DataError.
    """
    space = load_space(name, trust_code=True)
    if space.data is not None:
        space.check_inputs(data.info(space.data).input_shape, name)
    example = space.draw(RandomSuggester(seed=0), seed=0).summary()
    try:
        return SpaceCheck(name, example, len(grid(space)), "")
    except UsageError as error:
        reason = str(error).removeprefix("sampler.name: grid ").partition(". ")[0]
        return SpaceCheck(name, example, None, reason)
