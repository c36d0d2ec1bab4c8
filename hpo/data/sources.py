"""Sources of a data set's files, for those that the cache lacks.

A source is a function that puts the files, compressed or not, somewhere below a folder. Programs that use the network
run as child processes and are stopped after ten seconds without progress, whatever they wait for: a name server, a
connection or the next byte.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hpo.data.registry import DataInfo
from hpo.interpreter import python

TIMEOUT = 10.0
"""Seconds without a new byte after which a source is stopped."""
START_UP = 120.0
"""Seconds that a child may take to import torch before it says that it is ready."""

ReportBytes = Callable[[int], None]
"""Called with the number of bytes that have arrived."""
Source = tuple[str, Callable[[Path, ReportBytes], Path]]
"""A name, and the function that gets the files; it returns the folder that they are somewhere below."""


class SourceError(Exception):
    """A source failed; the text gives the reason, to be read after the source's name."""


def sources(data: DataInfo) -> Iterator[Source]:
    """Yield the sources of a data set in the order to try them."""
    if data.system_folder:
        yield data.system_folder, lambda folder, progress: _system(data)
    if data.torchvision:
        yield "torchvision's download", lambda folder, progress: _torchvision(data, folder, progress)
    if data.debian_package:
        yield "Debian's archive", lambda folder, progress: _debian(data, folder, progress)


def _system(data: DataInfo) -> Path:
    folder = Path(data.system_folder)
    if not folder.is_dir():
        raise SourceError("no such folder")
    return folder


def _torchvision(data: DataInfo, folder: Path, progress: ReportBytes) -> Path:
    command = python("-m", "hpo.data.download", data.torchvision, str(folder))
    run_child(command, folder, progress, ready="ready")
    return folder


def _debian(data: DataInfo, folder: Path, progress: ReportBytes) -> Path:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise SourceError("apt is not installed")
    try:
        run_child(["apt-get", "download", data.debian_package], folder, progress)
    except _Failed:
        # apt's lists are missing or out of date: private lists need no root.
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True)
        private = [f"-oDir::State::Lists={folder}/lists", f"-oDir::Cache={folder}/cache"]
        run_child(["apt-get", *private, "update"], folder, lambda size: None)
        run_child(["apt-get", *private, "download", data.debian_package], folder, progress)
    packages = list(folder.glob("*.deb"))
    if not packages:
        raise SourceError(f"no package {data.debian_package}")
    run_child(["dpkg-deb", "-x", str(packages[0]), str(folder / "unpacked")], folder, lambda size: None)
    return folder / "unpacked"


class _Failed(SourceError):
    """The child process ended with an error: another command may succeed."""


def run_child(command: list[str], folder: Path, progress: ReportBytes, ready: str = "") -> None:
    """Run a child process in a folder; whatever makes the folder grow, its output too, counts as progress.

    Raises: SourceError after `TIMEOUT` seconds without progress, _Failed if the child fails.
    """
    log = folder / "log.txt"
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "LC_ALL": "C"},
        )
        try:
            size, last_progress, waiting_for_start = -1, time.monotonic(), bool(ready)
            while child.poll() is None:
                time.sleep(0.1)
                now_size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
                if now_size != size:
                    size, last_progress = now_size, time.monotonic()
                    progress(size)
                if waiting_for_start and ready in log.read_text(errors="replace"):
                    waiting_for_start, last_progress = False, time.monotonic()
                if time.monotonic() - last_progress > (START_UP if waiting_for_start else TIMEOUT):
                    raise SourceError(f"no progress for {TIMEOUT:.0f} s")
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    if child.returncode != 0:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise _Failed(lines[-1][:200] if lines else f"exit code {child.returncode}")
