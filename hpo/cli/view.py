"""The live view of a study: read from the store, so that it shows all workers, wherever they are."""

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from hpo.cli.tables import configuration, lanes, pace
from hpo.config import format_difference
from hpo.store import queries
from hpo.store.database.connect import Store
from hpo.store.database.url import shown
from hpo.store.record import State
from hpo.store.studies import StudyRecord
from hpo.store.views import StudyView, TrialView

POLL_SECONDS = 1.0
TICK_SECONDS = 0.2
_BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Picture:
    """What the view shows, as it was read at one moment."""

    study: StudyView
    best: TrialView | None
    baseline: TrialView | None
    front: list[TrialView]
    """With two objectives: what is not dominated, the best by the metric first."""
    running: list[TrialView]
    ended: list[TrialView]


class View:
    """Shows a study in a terminal: a live picture, or a line per ended trial where there is no terminal."""

    def __init__(self, store: Store, study: StudyRecord, console: Console) -> None:
        self.store, self.study, self.console = store, study, console
        self.live: Live | None = None
        self.picture: Picture | None = None
        self.note = ""
        self._quiet = contextlib.ExitStack()
        self._started = time.monotonic()
        self._finished_before: int | None = None
        self._polled = 0.0
        self._said: set[str] = set()
        self._known: set[int] | None = None

    def __enter__(self) -> "View":
        if self.console.is_terminal:
            self._quiet.enter_context(_no_echo())
            self.live = Live(
                console=self.console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._poll()
        if self.live is not None:
            self.live.stop()
        self._quiet.close()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text, highlight=False, markup=False)

    def say_once(self, text: str) -> None:
        """Print a line that stays, the first time."""
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def update(self) -> None:
        """Read if it is time, draw, and wait a little."""
        if time.monotonic() - self._polled >= POLL_SECONDS:
            self._poll()
        if self.live is not None:
            self.live.update(self._drawing(), refresh=True)
        time.sleep(TICK_SECONDS)

    def _poll(self) -> None:
        self._polled = time.monotonic()
        try:
            self.picture = self._read()
            self.note = ""
        except SQLAlchemyError:
            self.note = "the store does not answer; the workers go on and keep what they have to say"
            return
        if self._finished_before is None:
            self._finished_before = self.picture.study.finished
        if self.live is None:
            self._say_ended(self.picture)

    def _read(self) -> Picture:
        study_id = self.study.study_id
        with self.store.read() as connection:
            best = queries.best_trials(connection, study_id, 1)
            return Picture(
                study=queries.study(connection, study_id),
                best=best[0] if best else None,
                baseline=queries.baseline_trial(connection, study_id),
                front=queries.front(connection, study_id),
                running=queries.running_trials(connection, study_id),
                ended=queries.last_ended(connection, study_id, 50 if self.live is None else 5),
            )

    def _say_ended(self, picture: Picture) -> None:
        if self._known is None:
            self._known = {trial.trial_id for trial in picture.ended} if picture.study.finished else set()
        for trial in reversed(picture.ended):
            if trial.trial_id not in self._known:
                self._known.add(trial.trial_id)
                of = f" of {picture.study.budget.trials}" if picture.study.budget else ""
                self.say(f"{_ended_line(trial)}  [{picture.study.finished}{of} done, best {_value(picture.best)}]")

    def _drawing(self) -> RenderableType:
        picture = self.picture
        if picture is None:
            return Text(self.note or "...")
        study, width = picture.study, self.console.width
        parts: list[RenderableType] = [
            self._header(study),
            self._progress(study),
            self._best(picture),
            self._workers(study),
        ]
        rows = max(3, self.console.height - 13)
        if picture.running:
            parts.append(self._running(picture.running[: rows - 2]))
        else:
            parts.append(Text("workers are starting", style="dim") if not study.finished else Text(""))
        ended = [Text(_ended_line(t), style="dim", no_wrap=True, overflow="ellipsis") for t in picture.ended[:3]]
        parts += ended
        if self.note:
            parts.append(Text(self.note, style="yellow"))
        for part in parts:
            if isinstance(part, Text):
                part.truncate(width - 1, overflow="ellipsis")
        return Group(*parts)

    def _header(self, study: StudyView) -> Text:
        space = study.attributes.space or {}
        text = Text.assemble((study.name, "bold"), f"  {space.get('title') or study.attributes.space_name or ''}")
        return text.append(f"  {space.get('data', '')} in {shown(self.store.url)}", style="dim")

    def _workers(self, study: StudyView) -> Text:
        """Who is at work, on what, with how much memory."""
        hosts: dict[str, list[str]] = {}
        for worker in study.workers:
            vitals = [str(worker.get("device", "?"))]
            if "memory_mb" in worker:
                vitals.append(f"{worker['memory_mb']:,} MB")
            if "gpu_percent" in worker:
                vitals.append(f"GPU {worker['gpu_percent']} %")
            hosts.setdefault(str(worker.get("host", "?")), []).append(" ".join(vitals))
        count = len(study.workers)
        listed = "; ".join(f"{host}: {', '.join(sorted(found))}" for host, found in sorted(hosts.items()))
        parts = [f"{count} worker{'' if count == 1 else 's'}", listed, lanes(study)]
        return Text("  ".join(part for part in parts if part), style="dim")

    def _progress(self, study: StudyView) -> Table:
        budget, counts = study.budget, study.counts
        total = budget.trials if budget else max(study.finished, 1)
        grid = Table.grid(padding=(0, 1))
        failed = f", [red]{counts[State.FAIL]} failed[/red]" if counts[State.FAIL] else ""
        failed += f", {study.infeasible} infeasible" if study.infeasible else ""
        pruned = f" ({counts[State.PRUNED]} pruned{failed})" if counts[State.PRUNED] or failed else ""
        grid.add_row(
            ProgressBar(
                total=total, completed=min(study.finished, total), width=max(10, min(30, self.console.width - 50))
            ),
            f"{study.finished}/{total} trials{pruned}",
            f"[dim]{', '.join(part for part in (self._time_left(study, total), pace(study)) if part)}[/dim]",
        )
        return grid

    def _time_left(self, study: StudyView, total: int) -> str:
        done = study.finished - (self._finished_before or 0)
        guesses = []
        if done > 0:
            guesses.append((total - study.finished) * (time.monotonic() - self._started) / done)
        if study.budget is not None and study.budget.timeout is not None and study.active_seconds is not None:
            guesses.append(max(0.0, study.budget.timeout - study.active_seconds))
        return f"about {_duration(min(guesses))} left" if guesses else ""

    def _best(self, picture: Picture) -> Text:
        if picture.best is None:
            return Text("best: none complete yet", style="dim")
        text = Text.assemble("best: ", (_value(picture.best), "bold green"), f" trial {picture.best.number}")
        baseline = picture.baseline
        if baseline is not None and baseline.trial_id == picture.best.trial_id:
            text.append(" (the baseline)")
        elif baseline is not None and baseline.value is not None and picture.best.value is not None:
            gain = format_difference(picture.study.metric, picture.best.value - baseline.value)
            text.append(f" ({gain} over the baseline)")
        if len(picture.front) > 1:
            last = picture.front[-1]
            least = f"{_value(last)} at {last.cost:,.6g} {picture.study.cost_label}"
            text.append(f"; a front of {len(picture.front)} down to {least}")
        return text.append(f"  {configuration(picture.best)}", style="dim")

    def _running(self, running: list[TrialView]) -> Table:
        grid = Table.grid(padding=(0, 1), expand=False)
        room = max(0, self.console.width - 62)
        for trial in running:
            epochs = (trial.attributes.config or {}).get("epochs", 1)
            grid.add_row(
                f"trial {trial.number}",
                ProgressBar(total=epochs, completed=len(trial.curve), width=10),
                f"{len(trial.curve)}/{epochs}",
                _value_of_curve(trial),
                Text(sparkline(list(trial.curve.values())[-20:]), style="cyan"),
                Text(configuration(trial)[:room] if room > 10 and trial.attributes.config else "", style="dim"),
            )
        return grid


@contextlib.contextmanager
def _no_echo() -> Iterator[None]:
    """Keep what is typed, ^C among it, from being written into the picture."""
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


def sparkline(values: list[float]) -> str:
    """Return a curve as a row of blocks, the lowest value to the highest."""
    if not values:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_BLOCKS[round((value - low) / span * (len(_BLOCKS) - 1))] for value in values)


def _value(trial: TrialView | None) -> str:
    return f"{trial.value:.4f}" if trial is not None and trial.value is not None else "none"


def _value_of_curve(trial: TrialView) -> str:
    return f"{list(trial.curve.values())[-1]:.4f}" if trial.curve else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else (f"{minutes}m{rest:02}s" if minutes else f"{rest}s")


def _ended_line(trial: TrialView) -> str:
    """Return what became of a trial, in one line."""
    attributes, failure = trial.attributes, trial.attributes.failure
    if trial.state == State.FAIL:
        message = failure.message if failure else "for a reason that was not recorded"
        return f"trial {trial.number:<3} failed: {message}"
    word = "diverged" if failure else trial.state.lower()
    epochs = len(trial.curve) if attributes.epochs is None else attributes.epochs
    seconds = attributes.seconds or 0.0
    value = f"{trial.value:.4f}" if trial.value is not None else "none"
    return f"trial {trial.number:<3} {word:8} {value}  {epochs} epochs {seconds:.1f} s  {configuration(trial)}"
