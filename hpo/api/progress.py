"""Observers of a search for terminals, notebooks and silence."""

import contextlib
import html
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeRemainingColumn

from hpo.errors import StoreUnavailableError
from hpo.service.progress import StudyProgressView, read_progress
from hpo.service.search import Observer, SilentObserver
from hpo.service.train import EpochUpdate
from hpo.store.database.connect import Store
from hpo.store.studies import StudyRecord
from hpo.terminal import TextConsole, text_column

READ_SECONDS = 1.0
"""How often progress is read from the store, at most."""


def observer_for(store: Store, study: StudyRecord, *, show: bool) -> Observer:
    """Return an observer that shows progress where Python runs: a terminal or a notebook; a silent one otherwise."""
    if not show:
        return SilentObserver()
    console = TextConsole(stderr=True)
    if console.is_jupyter:
        return NotebookProgress(store, study)
    return TerminalProgress(store, study, console)


class _Polling:
    """Reads progress at most once a second."""

    def __init__(self, store: Store, study: StudyRecord) -> None:
        self.store, self.study = store, study
        self._read_at = 0.0

    def update(self) -> None:
        """Read and draw, if it is time."""
        if time.monotonic() - self._read_at >= READ_SECONDS:
            self.read()

    def read(self) -> None:
        """Read and draw now; a store that does not answer is asked again later."""
        self._read_at = time.monotonic()
        try:
            self.draw(read_progress(self.store, self.study, ended=0))
        except StoreUnavailableError as error:
            self.warn(str(error))

    def draw(self, progress: StudyProgressView) -> None:
        """Show what was read."""
        raise NotImplementedError

    def warn(self, text: str) -> None:
        """Show a warning that stays."""
        raise NotImplementedError


class TerminalProgress(_Polling):
    """One line in a terminal: a bar of finished trials, the best value so far, the time left."""

    def __init__(self, store: Store, study: StudyRecord, console: Console) -> None:
        super().__init__(store, study)
        self._progress = Progress(
            text_column("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            text_column("trials, {task.fields[best]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        self.read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.read()
        self._progress.stop()

    def draw(self, progress: StudyProgressView) -> None:
        """Show the progress."""
        done, total = _counts(progress)
        if self._task is None:
            self._task = self._progress.add_task(self.study.name, best=_best(progress))
        self._progress.update(self._task, completed=done, total=total, best=_best(progress))

    def say(self, text: str) -> None:
        """Show nothing: the bar says it."""

    def warn(self, text: str) -> None:
        """Show a warning that stays."""
        self._progress.console.print(text)


class NotebookProgress(_Polling):
    """A progress bar in a notebook cell, by IPython's own display; it needs no widgets."""

    def __init__(self, store: Store, study: StudyRecord) -> None:
        super().__init__(store, study)
        self._handle: Any = None
        self._warnings: list[str] = []

    def __enter__(self) -> Self:
        from IPython.display import HTML, display

        self._handle = display(HTML(""), display_id=True)  # type: ignore[no-untyped-call]
        self.read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.read()

    def draw(self, progress: StudyProgressView) -> None:
        """Show the progress."""
        from IPython.display import HTML

        done, total = _counts(progress)
        lines = [
            f"<progress value={done} max={total} style='width: 20em; vertical-align: middle'></progress> "
            f"{html.escape(self.study.name)}: {done} of {total} trials, {html.escape(_best(progress))}",
            *(html.escape(text) for text in self._warnings),
        ]
        self._handle.update(HTML("<br>".join(lines)))  # type: ignore[no-untyped-call]

    def say(self, text: str) -> None:
        """Show nothing: the bar says it."""

    def warn(self, text: str) -> None:
        """Show a warning that stays."""
        if text not in self._warnings:
            self._warnings.append(text)


def _counts(progress: StudyProgressView) -> tuple[int, int]:
    """Return the finished trials and the budget."""
    study = progress.study
    return study.finished, study.budget.trials if study.budget is not None else max(study.finished, 1)


def _best(progress: StudyProgressView) -> str:
    best = progress.best
    return "no trial complete" if best is None or best.value is None else f"best {best.value:.4f} (trial {best.number})"


@contextlib.contextmanager
def epochs_shown(*, show: bool) -> Iterator[Callable[[EpochUpdate], None]]:
    """Yield a function that shows each epoch of a training as a bar, in a terminal; it shows nothing elsewhere."""
    console = TextConsole(stderr=True)
    if not show or console.is_jupyter:
        yield lambda update: None
        return
    with Progress(text_column("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console) as bars:
        task = bars.add_task("training", total=None)

        def on_epoch(update: EpochUpdate) -> None:
            done = update.epochs * (update.training - 1) + update.epoch
            text = f"training, {update.measure} {update.score:.4f}"
            bars.update(task, completed=done, total=update.epochs * update.trainings, description=text)

        yield on_epoch
