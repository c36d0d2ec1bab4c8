"""A checkpoint of the right config that cannot be a state of its training is refused by every engine before use."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from hpo.config import EMA, SGDMomentum, TrialConfig
from hpo.training.engine import Checkpoint, Engine, TrialFault
from hpo.training.packed.scheduling.engine import PackedEngine
from hpo.training.solo import SoloEngine
from tests.helpers.retraining import CPU, MLP_CONFIG

ENGINES: dict[str, Callable[[], Engine]] = {
    "solo": lambda: SoloEngine(CPU),
    "packed": lambda: PackedEngine(CPU, None, 4),
}
Tensors = dict[str, Any]


@cache
def checkpoint(config: TrialConfig = MLP_CONFIG) -> Checkpoint:
    engine = SoloEngine(CPU)
    engine.admit(1, config)
    engine.step()
    return engine.snapshot(1)


def without(start: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: value for name, value in tensors.items() if not name.startswith(start)}


def shaped(end: str, *shape: int) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {n: np.zeros(shape, np.float32) if n.endswith(end) else v for n, v in tensors.items()}


def more(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: np.zeros(1, np.float32)}


CHANGES: dict[str, Callable[[Tensors], Tensors]] = {
    "nothing": without(""),
    "no weights": without("model."),
    "a weight less": without("model.output.weight"),
    "no moments": without("optimizer."),
    "no average": without("average."),
    "a weight of another shape": shaped("linear.weight", 3),
    "moments of another shape": shaped("exp_avg", 7),
    "steps that are no number": shaped(".step", 7),
    "a parameter that is none": more("optimizer.99.exp_avg"),
    "a moment that is none": more("optimizer.0.other"),
    "a name that is none": more("optimizer"),
    "best weights of another network": more("best.other"),
    "a name with an escape": more("\x1b[31m"),
}


@pytest.mark.parametrize("engine", ENGINES)
def test_other_tensors_do_not_fit(engine: str) -> None:
    config = replace(MLP_CONFIG, average=EMA(horizon=1.0))
    whole = checkpoint(config)
    for kind, change in CHANGES.items():
        with pytest.raises(TrialFault, match="it must hold this network's tensors, got") as caught:
            ENGINES[engine]().admit(1, config, replace(whole, tensors=change(dict(whole.tensors))))
        assert caught.value.fault.message.isprintable(), kind
    ENGINES[engine]().admit(1, config, whole)


@pytest.mark.parametrize("engine", ENGINES)
def test_another_history_does_not_fit(engine: str) -> None:
    whole = checkpoint()
    [first] = whole.history
    for history in (
        (replace(first, epoch=-3),),
        (first, first),
        tuple(replace(first, epoch=epoch) for epoch in range(1, 99)),
        (replace(first, validation_accuracy=float("nan")),),
        (replace(first, last=True), replace(first, epoch=2)),
    ):
        with pytest.raises(TrialFault, match=r"its (epochs|scores) must be"):
            ENGINES[engine]().admit(1, MLP_CONFIG, replace(whole, history=history))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_an_engine_has_saved_fits_the_others(engine: str) -> None:
    """At the start, underway and at the end, whatever the optimizer keeps."""
    for config in (MLP_CONFIG, replace(MLP_CONFIG, optimizer=SGDMomentum(lr=0.01), average=EMA(horizon=1.0), epochs=2)):
        saving = ENGINES[engine]()
        saving.admit(1, config)
        for _ in range(config.epochs + 1):
            for other in ENGINES.values():
                other().admit(1, config, saving.snapshot(1))
            saving.step()
