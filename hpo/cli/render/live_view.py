"""The live view of a study: read from the store, so that it shows all workers, wherever they are."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpo import service
from hpo.cli.render.text import duration, ended_line, lanes, pace, sparkline, value_text, workers_at
from hpo.errors import StoreUnavailableError

if TYPE_CHECKING:
    from hpo.service.progress import StudyProgressView, StudyView, TrialView
    from hpo.service.search import Store, StudyRecord

POLL_SECONDS = 1.0
ENDED_LIVE, ENDED_LINES = 5, 50
"""Trials that ended last, as many as are read for a live picture, and for a line each."""


class LiveView:
    """Shows a study in a terminal: a live picture, or a line per ended trial where there is no terminal."""

    def __init__(self, store: "Store", study: "StudyRecord", console: Console) -> None:
        self.store, self.study, self.console = store, study, console
        self.live: Live | None = None
        self.progress: StudyProgressView | None = None
        """What the view shows, as it was read last."""
        self.problem = ""
        """Why nothing newer can be read; empty if all is well."""
        self._quiet = contextlib.ExitStack()
        self._started = time.monotonic()
        self._finished_before: int | None = None
        self._polled = 0.0
        self._reported: set[int] | None = None
        """Trials whose end was reported, or lies before this view."""

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._quiet.enter_context(_no_echo())
            self.live = Live(
                console=self.console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._poll()
        if self.live is not None:
            self.live.stop()
        self._quiet.close()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text)

    def warn(self, text: str) -> None:
        """Print a warning that stays."""
        self.say(text)

    def update(self) -> None:
        """Read if it is time, and draw."""
        if time.monotonic() - self._polled >= POLL_SECONDS:
            self._poll()
        if self.live is not None:
            self.live.update(self._drawing(), refresh=True)

    def _poll(self) -> None:
        self._polled = time.monotonic()
        ended = ENDED_LINES if self.live is None else ENDED_LIVE
        try:
            self.progress = service.progress.read_progress(self.store, self.study, ended=ended)
            self.problem = ""
        except StoreUnavailableError:
            self.problem = "the store does not answer; the workers continue and store their results later"
            return
        if self._finished_before is None:
            self._finished_before = self.progress.study.finished
        if self.live is None:
            self._report_ended(self.progress)

    def _report_ended(self, progress: "StudyProgressView") -> None:
        if self._reported is None:
            self._reported = {trial.trial_id for trial in progress.ended} if progress.study.finished else set()
        for trial in reversed(progress.ended):
            if trial.trial_id not in self._reported:
                self._reported.add(trial.trial_id)
                of = f" of {progress.study.budget.trials}" if progress.study.budget else ""
                done = f"{progress.study.finished}{of} done, best {value_text(progress.best)}"
                self.say(f"{ended_line(trial)}  [{done}]")

    def _drawing(self) -> RenderableType:
        progress = self.progress
        if progress is None:
            return Text(self.problem or "...")
        study, width = progress.study, self.console.width
        parts: list[RenderableType] = [
            self._header(study),
            self._progress(study),
            self._best(progress),
            Text("  ".join(part for part in (workers_at(study), lanes(study)) if part), style="dim"),
        ]
        rows = max(3, self.console.height - 13)
        if progress.running:
            parts.append(self._running(progress.running[: rows - 2]))
        else:
            parts.append(Text("workers are starting", style="dim") if not study.finished else Text(""))
        ended = [Text(ended_line(t), style="dim", no_wrap=True, overflow="ellipsis") for t in progress.ended[:3]]
        parts += ended
        if self.problem:
            parts.append(Text(self.problem, style="yellow"))
        for part in parts:
            if isinstance(part, Text):
                part.truncate(width - 1, overflow="ellipsis")
        return Group(*parts)

    def _header(self, study: "StudyView") -> Text:
        space = study.attributes.space or {}
        text = Text.assemble((study.name, "bold"), f"  {space.get('title') or study.attributes.space_name or ''}")
        return text.append(f"  {space.get('data', '')} in {service.stores.store_name(self.store)}", style="dim")

    def _progress(self, study: "StudyView") -> Table:
        budget, state = study.budget, service.progress.State
        pruned, failed_count = study.counts[state.PRUNED], study.counts[state.FAIL]
        total = budget.trials if budget else max(study.finished, 1)
        grid = Table.grid(padding=(0, 1))
        trials = Text(f"{study.finished}/{total} trials")
        if pruned or failed_count or study.infeasible:
            failed = (f", {failed_count} failed" if failed_count else "", "red")
            infeasible = f", {study.infeasible} infeasible" if study.infeasible else ""
            trials.append(Text.assemble(f" ({pruned} pruned", failed, f"{infeasible})"))
        grid.add_row(
            ProgressBar(
                total=total, completed=min(study.finished, total), width=max(10, min(30, self.console.width - 50))
            ),
            trials,
            Text(", ".join(part for part in (self._time_left(study, total), pace(study)) if part), style="dim"),
        )
        return grid

    def _time_left(self, study: "StudyView", total: int) -> str:
        done = study.finished - (self._finished_before or 0)
        guesses = []
        if done > 0:
            guesses.append((total - study.finished) * (time.monotonic() - self._started) / done)
        if study.budget is not None and study.budget.timeout is not None and study.active_seconds is not None:
            guesses.append(max(0.0, study.budget.timeout - study.active_seconds))
        return f"about {duration(min(guesses))} left" if guesses else ""

    def _best(self, progress: "StudyProgressView") -> Text:
        if progress.best is None:
            return Text("best: none complete yet", style="dim")
        text = Text.assemble("best: ", (value_text(progress.best), "bold green"), f" trial {progress.best.number}")
        baseline = progress.baseline
        if baseline is not None and baseline.trial_id == progress.best.trial_id:
            text.append(" (the baseline)")
        elif baseline is not None and baseline.value is not None and progress.best.value is not None:
            gain = service.studies.format_difference(progress.study.metric, progress.best.value - baseline.value)
            text.append(f" ({gain} over the baseline)")
        if len(progress.front) > 1:
            last = progress.front[-1]
            least = f"{value_text(last)} at {last.cost:,.6g} {progress.study.cost_label}"
            text.append(f"; a front of {len(progress.front)} down to {least}")
        return text.append(f"  {service.studies.configuration(progress.best)}", style="dim")

    def _running(self, running: "Sequence[TrialView]") -> Table:
        grid = Table.grid(padding=(0, 1), expand=False)
        room = max(0, self.console.width - 62)
        for trial in running:
            epochs = (trial.attributes.config or {}).get("epochs", 1)
            grid.add_row(
                f"trial {trial.number}",
                ProgressBar(total=epochs, completed=len(trial.curve), width=10),
                f"{len(trial.curve)}/{epochs}",
                f"{list(trial.curve.values())[-1]:.4f}" if trial.curve else "",
                Text(sparkline(list(trial.curve.values())[-20:]), style="cyan"),
                Text(
                    service.studies.configuration(trial)[:room] if room > 10 and trial.attributes.config else "",
                    style="dim",
                ),
            )
        return grid


@contextlib.contextmanager
def _no_echo() -> Iterator[None]:
    """Keep what is typed, ^C among it, from being written into the live picture."""
    try:
        import termios
    except ImportError:  # not a Unix system
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    quiet = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
