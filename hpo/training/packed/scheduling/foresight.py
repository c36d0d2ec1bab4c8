"""Spare slots of a program that is kept: how many, and for what, so that newcomers are likely to fit.

Recording a program's graph anew takes longer than many epochs of a small lane. So it has more slots than members, and
each can train whatever the trials of its bucket have needed so far: their depth, widths, dropout, and so on.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice, zip_longest

from hpo.config import CNN, EMA, MLP, TrialConfig

SIZES = (4, 16, 64)
"""Numbers of slots. An engine offers twice as many places with each trial that packs: each size is recorded once."""


class Foresight:
    """What the trials of a bucket have needed so far."""

    def __init__(self) -> None:
        self._most: TrialConfig | None = None
        self._activations: list[str] = []

    def spare(self, configs: Sequence[TrialConfig], slots: int) -> list[TrialConfig]:
        """Return a config for each spare slot of a program with members of `configs` and at most so many slots.

        With it the slot can train all that was needed so far. Activations take turns, as some programs have slots that
        can train only one.
        """
        for config in configs:
            self._note(config)
        size = min(slots, next((size for size in SIZES if size >= len(configs)), slots))
        most = self._most
        if most is None:
            return []
        turns = islice(cycle(self._activations), max(0, size - len(configs)))
        return [replace(most, model=replace(most.model, activation=name)) for name in turns]  # type: ignore[arg-type]

    def _note(self, config: TrialConfig) -> None:
        assert isinstance(config.model, MLP | CNN)
        if config.model.activation not in self._activations:
            self._activations.append(config.model.activation)
        self._most = config if self._most is None else most_of(self._most, config)


def most_of(one: TrialConfig, other: TrialConfig) -> TrialConfig:
    """Return a config that a slot must be made for in order to train two, whose networks may share a lane."""
    return replace(
        one,
        model=_most_network(one.model, other.model),
        clip_norm=one.clip_norm if one.clip_norm is not None else other.clip_norm,
        class_weight="balanced" if "balanced" in (one.class_weight, other.class_weight) else "none",
        average=one.average if isinstance(one.average, EMA) else other.average,
    )


def _most_network(one: object, other: object) -> MLP | CNN:
    assert isinstance(one, MLP | CNN) and isinstance(other, MLP | CNN)
    norm = one.norm if one.norm != "none" else other.norm
    dropout = tuple(max(rates) for rates in zip_longest(one.dropout, other.dropout, fillvalue=0.0))
    if isinstance(one, MLP) and isinstance(other, MLP):
        widths = tuple(max(pair) for pair in zip_longest(one.widths, other.widths, fillvalue=0))
        return replace(one, widths=widths, dropout=dropout, norm=norm)
    assert isinstance(one, CNN) and isinstance(other, CNN)
    return replace(
        one,
        channels=tuple(max(pair) for pair in zip(one.channels, other.channels, strict=True)),
        dropout=dropout,
        norm=norm,
        head_width=max(one.head_width, other.head_width),
        head_dropout=max(one.head_dropout, other.head_dropout),
    )
