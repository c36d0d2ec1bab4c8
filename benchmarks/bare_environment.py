"""A virtual environment with only what `benchmarks.gpu` needs: a rehearsal for a machine without a package index.

    python -m benchmarks.bare_environment FOLDER
    PYTHONPATH=$PWD FOLDER/bin/python -m benchmarks.gpu --device cpu --small --out RESULTS

The packages are links to those of the environment that this program runs in; nothing is downloaded. Whatever else
that environment has cannot be imported from the new one, so an import that is not needed, and not lazy, is found.
"""

import argparse
import subprocess
import sys
import sysconfig
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

PRESENT = ("torch", "torchvision", "numpy", "scikit-learn", "safetensors", "pytest", "pytest-timeout")
"""What the machine with the GPU must have, beside what these need themselves."""
CARRIED = (
    "alembic",
    "annotated-types",
    "colorlog",
    "filelock",
    "mako",
    "optuna",
    "platformdirs",
    "pydantic",
    "pydantic-core",
    "rich",
    "sqlalchemy",
    "tomlkit",
    "typer",
    "typing-extensions",
    "typing-inspection",
)
"""What travels to it as wheels: 9 MB."""


def closure(names: tuple[str, ...]) -> dict[str, Distribution]:
    """Return distributions and all that they require, by name; what is not installed is left out."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        for text in found[name].requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def link(found: Distribution, source: Path, target: Path) -> None:
    """Link a distribution's files, or the topmost folders of them that no other distribution shares, into a folder."""
    for file in found.files or ():
        if file.parts[0] in ("..", "__pycache__") or file.is_absolute():
            continue
        top = source / file.parts[0]
        # A namespace (nvidia/) is shared: its parts are linked one by one.
        depth = (
            1 if len(file.parts) == 1 or (top / "__init__.py").exists() or top.suffix in (".dist-info", ".libs") else 2
        )
        place = Path(*file.parts[:depth])
        (target / place).parent.mkdir(parents=True, exist_ok=True)
        if not (target / place).is_symlink():
            (target / place).symlink_to(source / place)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    folder: Path = arguments.parse_args().folder.absolute()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    source = Path(sysconfig.get_path("purelib"))
    target = folder / source.relative_to(sys.prefix)
    packages = closure(PRESENT) | closure(CARRIED)
    for found in packages.values():
        link(found, source, target)
    print(f"{folder}: {len(packages)} packages: {' '.join(sorted(packages))}")


if __name__ == "__main__":
    main()
