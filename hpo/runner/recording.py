"""What is recorded of a trial at its end: curves, figures for people, and pictures for the dashboard."""

import time
from collections.abc import Sequence
from types import TracebackType

from hpo.config import TrialConfig
from hpo.runner.session import Session
from hpo.runner.trial_plots import TrialPlotter
from hpo.store.record import TrialAttributes
from hpo.training.engine import Engine, EpochResult, final

CURVES = (
    "validation_accuracy",
    "validation_balanced_accuracy",
    "validation_macro_f1",
    "validation_loss",
    "train_accuracy",
    "train_loss",
    "seconds",
)
"""Fields of `EpochResult` that are recorded for each epoch."""


class TrainingClock:
    """Counts the seconds in the engine. Use as a context around its calls."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds += time.perf_counter() - self._start


class TrialRecorder:
    """Records ended trials, and asks the engine and the plotter for what it needs."""

    def __init__(self, session: Session, engine: Engine, clock: TrainingClock, plotter: TrialPlotter | None) -> None:
        self.session, self.engine, self.clock, self.plotter = session, engine, clock, plotter

    def record_end(self, key: int, config: TrialConfig, history: Sequence[EpochResult], *, complete: bool) -> None:
        """Record a trial that is complete or pruned, while the engine still has it."""
        with self.clock:
            examined = self.engine.examine(key)
        gap = examined.train_accuracy - final(config, history).validation_accuracy
        self.record_history(key, history)
        self.session.trials.note(
            key,
            TrialAttributes.train_accuracy.entry(examined.train_accuracy),
            TrialAttributes.overfitting_gap.entry(gap),
        )
        if examined.sampling_error is not None:
            self.session.trials.note(key, TrialAttributes.sampling_error.entry(examined.sampling_error))
        if examined.graph_failure:
            self.session.trials.note(key, TrialAttributes.graph_failure.entry(examined.graph_failure))
        if self.plotter is not None:
            self._plot(self.plotter, key, config, history, complete=complete)

    def record_history(self, key: int, history: Sequence[EpochResult]) -> None:
        """Record a trial's epochs, time and curves."""
        self.session.trials.note(
            key,
            TrialAttributes.epochs.entry(len(history)),
            TrialAttributes.seconds.entry(round(sum(result.seconds for result in history), 3)),
            TrialAttributes.curves.entry(curves(history)),
        )

    def _plot(
        self, plotter: TrialPlotter, key: int, config: TrialConfig, history: Sequence[EpochResult], *, complete: bool
    ) -> None:
        """Have pictures drawn: learning curves and, if the trial is the best so far, its errors."""
        pictures = plotter.curves(key, curves(history))
        if complete:
            best = self.session.ranking.best_value()
            if best is None or value_of(config, history) > best:
                with self.clock:
                    probabilities = self.engine.predict(key)
                pictures += plotter.errors(key, probabilities, config.split)
        self.session.trials.note(key, *pictures)


def value_of(config: TrialConfig, history: Sequence[EpochResult]) -> float:
    """Return a trial's value of its metric."""
    return final(config, history).score(config.metric)


def curves(history: Sequence[EpochResult]) -> dict[str, list[float]]:
    """Return learning curves by name, one value per epoch, rounded to six decimals."""
    return {name: [round(getattr(result, name), 6) for result in history] for name in CURVES}
