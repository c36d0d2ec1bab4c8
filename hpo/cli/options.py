"""Options that several commands share: their types, their completion and their rules.

Typer makes a command's options of its function's parameters; so commands may have more than five of them.
"""

import contextlib
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo import service
from hpo.cli.console import err
from hpo.errors import UsageError

if TYPE_CHECKING:
    from hpo.service.places import Plan


def _starting(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def complete_space(incomplete: str) -> list[str]:
    """Return the spaces that a half-typed name may become."""
    return _starting(service.names.document_names("space"), incomplete)


def complete_recipe(incomplete: str) -> list[str]:
    """Return the recipes that a half-typed name may become."""
    return _starting(service.names.document_names("recipe"), incomplete)


def complete_data(incomplete: str) -> list[str]:
    """Return the data sets that a half-typed name may become."""
    return _starting(service.names.data_names(), incomplete)


def complete_study(incomplete: str) -> list[str]:
    """Return the studies of the configured store that a half-typed name may become; none if it cannot be read."""
    return _starting(service.names.study_names(), incomplete)


def _allow(paths: list[Path] | None) -> list[Path] | None:
    service.trust.allow_code(paths or ())
    return paths


Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where studies are kept: sqlite:///FILE or postgresql://... "
        "[default: $HPO_STORAGE, else sqlite:///runs/studies.db]",
    ),
]
StudyName = Annotated[
    str, typer.Argument(help="A study of `hpo studies list`.", metavar="STUDY", autocompletion=complete_study)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Workers = Annotated[
    int | None,
    typer.Option(metavar="N", help="Number of worker processes. [default: one per CPU core, or one per GPU]"),
]
OnOption = Annotated[
    str,
    typer.Option(
        "--on",
        metavar="PLACE",
        help="Where the workers run: local; ray (the cluster of this machine, or of RAY_ADDRESS); ray://HOST:PORT "
        "(Ray's client server); slurm.",
    ),
]
Cpus = Annotated[float | None, typer.Option(metavar="N", help="CPU cores of each worker on Ray or Slurm. [default: 1]")]
Gpus = Annotated[
    float | None,
    typer.Option(
        metavar="N", help="GPUs of each worker on Ray or Slurm; on Ray also a part, such as 0.25. [default: 0]"
    ),
]
PlaceOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--on-option",
        metavar="KEY=VALUE",
        help="A setting of the place, may be repeated. Slurm: partition, account, time (minutes), mem_gb, and others "
        "of submitit. Ray: wait=yes, if the resources are added later.",
    ),
]
EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="ENGINE",
        help="solo: one trial at a time; packed: many small networks as one program; auto: packed where it is measured "
        "faster. [default: the recipe's]",
    ),
]
OwnCode = Annotated[
    list[Path] | None,
    typer.Option(
        "--python",
        metavar="FILE.py",
        callback=_allow,
        help="Allow this Python file of yours to run, for a study or model that needs it; may be repeated.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def plan_from(
    on: str,
    *,
    workers: int | None,
    device: str,
    cpus: float | None,
    gpus: float | None,
    place_options: list[str] | None,
    storage: str | None,
) -> "Plan":
    """Return how the workers that the options ask for can be started. Raises: UsageError."""
    with as_option():
        wanted = service.places.Wanted(
            on=on,
            workers=workers,
            device=device,
            cpus=cpus,
            gpus=gpus,
            options=service.places.parse_options(place_options or ()),
        )
        return service.places.plan_for(wanted, storage=storage, say=err().print)


def at_least_one(option: str, value: int | None) -> int | None:
    """Return a count if it is one. Raises: UsageError."""
    if value is not None and value < 1:
        raise UsageError(f"{option}: must be at least 1, got {value}.")
    return value


@contextlib.contextmanager
def as_option(option: str | None = None) -> Iterator[None]:
    """Name the option in errors of the service, which begin with a field's name; `option` where it is called otherwise.

    "seeds: must be at least 2" becomes "--seeds: must be at least 2".
    """
    try:
        yield
    except UsageError as error:
        field, _, text = str(error).partition(": ")
        if field.isupper() or (field == "storage" and option is None):  # also named by a variable
            raise
        name = option or "--" + field.replace("_", "-")
        raise UsageError(f"{name}: {text}") from None


def renamed(old: str, new: str, advice: Callable[[str], str]) -> Callable[[str | None], str | None]:
    """Return the callback of a hidden option that answers an old spelling with the new one.

    `advice` returns what to write in place of a value.
    """

    def refuse(value: str | None) -> str | None:
        if value is not None:
            raise UsageError(f"{old}: is now {new}, got {value}. {advice(value)}")
        return None

    return refuse


def with_option(option: str) -> Callable[[str], str]:
    """Return the advice to give a value to another option."""
    return lambda value: f"Use {option} {shlex.quote(value)}."
