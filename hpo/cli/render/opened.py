"""What opening a study has done, for people."""

from typing import TYPE_CHECKING

from rich.console import Console

from hpo import service

if TYPE_CHECKING:
    from hpo.service.create import OpenedStudy
    from hpo.service.data import ClassCounts
    from hpo.service.warm_start import WarmTrial

CLASSES = 6
"""Classes that are listed with their part of the rows."""


def print_opened(console: Console, opened: "OpenedStudy") -> None:
    """Print what was created, and how large a grid is."""
    study, trials = opened.study, opened.budget.trials
    if opened.store_created:
        console.print(f"made a new store: {service.stores.store_name(opened.store)}")
    if opened.created:
        console.print(f'made study "{study.name}": up to {trials} trials of {study.space.title or study.space_name}')
    if opened.budget.revive:
        console.print(f"the last {opened.budget.revive} of {trials} trials are second chances of pruned ones")
    if opened.grid_size is not None:
        size = opened.grid_size
        enough = f"; the budget of {trials} trials ends before: --trials {size} for all" if size > trials else ""
        console.print(f"grid of {size:,} configurations{enough}")
    if opened.class_counts is not None:
        console.print(_classes(opened.class_counts, study.metric))


def _classes(classes: "ClassCounts", metric: str) -> str:
    """Return how many rows each class has, and what to do if that is uneven."""
    counts, total = classes.counts, classes.total
    names = sorted(counts, key=lambda name: -counts[name])
    listed = ", ".join(f"{name} {100 * counts[name] / total:.0f} %" for name in names[:CLASSES])
    more = f", {len(names) - CLASSES} more" if len(names) > CLASSES else ""
    text = f"{classes.name}: {total:,} training rows, {len(names)} classes: {listed}{more}."
    if not classes.imbalanced or metric in ("balanced_accuracy", "macro_f1"):
        return text
    return (
        f'{text} They are imbalanced: consider --objective balanced_accuracy, and class_weight = "balanced" '
        "or choices of it in the space."
    )


def print_warm_trials(console: Console, trials: "tuple[WarmTrial, ...]") -> None:
    """Print which configurations of earlier studies are tried first, and which do not fit and why."""
    for warm in trials:
        text = f"does not fit: {warm.reason}" if warm.reason else f"is tried first: {warm.summary}"
        console.print(f"{warm.study}, trial {warm.trial}: {text}")
