"""Progress bars: of downloads and of a training."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from hpo.terminal import text_column

if TYPE_CHECKING:
    from hpo.service.data import Download, OnDownload
    from hpo.service.train import EpochUpdate, OnEpoch


@contextlib.contextmanager
def download_bar(console: Console) -> "Iterator[OnDownload]":
    """Give a callback that draws how much of a data set has come, from its first call to the end of the context."""
    columns = (text_column("{task.description}"), BarColumn(), DownloadColumn())
    progress = Progress(*columns, console=console, transient=True)

    def draw(download: "Download") -> None:
        if not progress.live.is_started:
            progress.start()
            progress.add_task(download.name, total=None)
        [task] = progress.task_ids
        progress.update(task, description=f"{download.name} from {download.source}", completed=download.received)

    try:
        yield draw
    finally:
        if progress.live.is_started:
            progress.stop()


@contextlib.contextmanager
def training_bar(console: Console) -> "Iterator[OnEpoch]":
    """Give a callback that draws the epochs of each training, from its first call to the end of the context."""
    columns = (text_column("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True)
    shown = 0  # the number of the training that is drawn

    def draw(update: "EpochUpdate") -> None:
        nonlocal shown
        progress.start()
        if update.training != shown:
            shown = update.training
            for task in list(progress.task_ids):
                progress.remove_task(task)
            progress.add_task("training", total=update.epochs)
        prefix = "" if update.trainings == 1 else f"seed {update.training} of {update.trainings}: "
        [task] = progress.task_ids
        progress.update(task, completed=update.epoch, description=f"{prefix}{update.measure} {update.score:.4f}")

    try:
        yield draw
    finally:
        if progress.live.is_started:
            progress.stop()
