"""The wheel and the source distribution: complete, with the right metadata, and usable outside the checkout."""

import email
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import hpo

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a freshly built wheel and sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def unpacked(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the unpacked wheel, as an installation lays it."""
    folder = tmp_path_factory.mktemp("wheel")
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_has_the_package_its_documents_and_its_type_marker(unpacked: Path) -> None:
    files = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hpo").rglob("*.py")}
    documents = {
        f"hpo/documents_copy/{path.relative_to(ROOT).as_posix()}"
        for folder in ("search_spaces", "studies")
        for path in (ROOT / folder).glob("*.toml")
    }
    assert modules <= files and documents <= files and len(documents) >= 12
    assert "hpo/py.typed" in files
    assert not [name for name in files if name.startswith(("tests/", "docs/", "benchmarks/"))]


def test_the_metadata_names_version_license_and_addresses(unpacked: Path) -> None:
    [folder] = unpacked.glob("*.dist-info")
    metadata = email.message_from_string((folder / "METADATA").read_text(encoding="utf-8"))
    assert metadata["Version"] == hpo.__version__
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert (folder / "licenses" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert {url.split(",")[0] for url in metadata.get_all("Project-URL", [])} >= {"Documentation", "Source", "Issues"}
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])


def test_the_wheel_works_without_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}

    def python(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert python("-c", "import hpo; print(hpo.__file__)").startswith(str(unpacked))
    assert python("-c", "import hpo; print(hpo.__version__)") == hpo.__version__
    assert python("-m", "hpo", "--version") == hpo.__version__
    assert "ann_fashion" in python("-m", "hpo", "spaces", "list")


def test_the_sdist_can_be_built_and_tested(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "hpo/py.typed", "tests/test_packaging.py"}
    assert wanted <= files
    assert "search_spaces/ann_fashion.toml" in files and "studies/default.toml" in files
    assert not [name for name in files if name.startswith((".venv", "runs/", "site/")) or name.endswith(".pyc")]


def test_the_oldest_dependencies_are_the_lower_bounds() -> None:
    """CI's job with the oldest dependencies installs exactly the lowest versions that pyproject.toml allows."""
    pins = dict(
        line.split("==")
        for line in (ROOT / ".github" / "constraints-oldest.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    extras = PROJECT["optional-dependencies"]
    for requirement in [*PROJECT["dependencies"], *extras["s3"], *extras["onnx"], *extras["ray"], *extras["slurm"]]:
        match = re.match(r"([\w.-]+)(?:\[.*\])?>=([\d.]+)", requirement)
        assert match, f"{requirement}: has no lower bound"
        name, lowest = match.groups()
        pinned = pins[name].split(".")
        assert pinned[: lowest.count(".") + 1] == lowest.split("."), requirement
