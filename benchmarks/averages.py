"""Averaged weights: what they cost in each step, and what they gain where the learning rate does not fall.

    python -m benchmarks.averages [--repeats 7] [--seeds 4 15 20] [-o benchmarks/results/averages.json]

The cost is the CPU time of an epoch's updates of averages over that of everything else in the epoch, in the solo engine
and in a lane. The gain is measured for the draws of ann_fashion with these seeds: each is trained
once, and the final weights are validated beside their averages, which do not change the training.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch

from hpo.config import EMA, MLP, AdamW, TrialConfig
from hpo.data import fetch, info
from hpo.models import build_model
from hpo.space import load_space
from hpo.suggesters import RandomSuggester
from hpo.training.averages import WeightAverage
from hpo.training.dataset import ResidentData
from hpo.training.devices import use_one_thread
from hpo.training.epoch import Run
from hpo.training.packed.compute.averages import Averages
from hpo.training.packed.compute.network import inputs_of
from hpo.training.packed.compute.program import Program, member_of
from hpo.training.packed.layout.bucket import bucket_of
from hpo.training.solo import SoloEngine

CPU = torch.device("cpu")
SHAPES: list[tuple[tuple[int, ...], int]] = [((64, 64), 32), ((128, 64), 64), ((512, 256), 128), ((512,) * 4, 128)]
"""Widths of an MLP with batch norm and dropout, and rows of a batch."""
SLOTS = 4
HORIZONS = (0.25, 0.5, 1.5)
Updates = WeightAverage | Averages


def solo(config: TrialConfig, data: ResidentData) -> tuple[Updates, Callable[[], object]]:
    """Return the averages of a trial by itself, and a function that trains an epoch."""
    run = Run(config, data, CPU)
    assert run.average is not None
    return run.average, lambda: run.train_only(0)


def lane(config: TrialConfig, data: ResidentData) -> tuple[Updates, Callable[[], object]]:
    """Return the averages of a lane of copies of a trial, and a function that trains an epoch."""
    model = build_model(config.model, data.input_shape, data.classes, seed=0)
    members = [member_of(key, config, model, None, CPU) for key in range(SLOTS)]
    program = Program(members, data, inputs_of(config, data.train_x), bucket_of(config, data))
    assert program.averages is not None
    return program.averages, program.train_epoch


def cost(averages: Updates, train_epoch: Callable[[], object], repeats: int) -> float:
    """Return the median share of the updates' CPU time in that of the rest of an epoch, after one to warm up."""
    update, seconds, shares = averages.update, 0.0, []

    def timed(step: int) -> None:
        nonlocal seconds
        start = time.thread_time()
        update(step)
        seconds += time.thread_time() - start

    averages.update = timed  # type: ignore[method-assign]
    for turn in range(repeats + 1):
        seconds, start = 0.0, time.thread_time()
        train_epoch()
        if turn:
            shares.append(seconds / (time.thread_time() - start - seconds))
    return statistics.median(shares)


def gains(data: ResidentData, seeds: Sequence[int]) -> Iterator[dict[str, object]]:
    """Yield, for each draw, the final validation accuracy of the weights and of their averages by horizon."""
    space = load_space("ann_fashion")
    for seed in seeds:
        config = space.draw(RandomSuggester(seed), seed=seed)
        run = Run(config, data, CPU)
        averages = {h: WeightAverage(run.model, h, run.steps, replaced=False) for h in HORIZONS}
        _update_too(run, list(averages.values()))
        for epoch in range(config.epochs):
            run.train_only(epoch)
        ends: dict[str, float] = {}
        for name, average in [("none", None), *((f"{h:g} epochs", one) for h, one in averages.items())]:
            run.average = average
            ends[name] = round(run.evaluate(data.validation_x, data.validation_y).accuracy, 4)
        yield {"seed": seed, "config": config.summary(), "accuracy": ends}


def _update_too(run: Run, averages: Sequence[WeightAverage]) -> None:
    """Have a run update averages of several horizons after each of its steps."""
    update, step = run.update, 0

    def update_all() -> None:
        nonlocal step
        update()
        for average in averages:
            average.update(step)
        step += 1

    run.update = update_all  # type: ignore[method-assign]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=7)
    arguments.add_argument("--seeds", type=int, nargs="*", default=[])
    arguments.add_argument("-o", "--output", type=Path)
    options = arguments.parse_args()
    use_one_thread()
    fetch(info("fashion_mnist"))
    whole = SoloEngine(CPU).data(load_space("ann_fashion").draw(RandomSuggester(0), seed=0))
    few = replace(whole, train_x=whole.train_x[:6400], train_y=whole.train_y[:6400])
    costs: dict[str, dict[str, float]] = {}
    for widths, batch in SHAPES:
        network = MLP(widths, (0.2,) * len(widths), norm="batch")
        config = TrialConfig("fashion_mnist", network, AdamW(1e-3), batch, 100, average=EMA(), precision="fp32")
        name = f"{'-'.join(map(str, widths))}, batch {batch}"
        costs[name] = {e.__name__: round(cost(*e(config, few), options.repeats), 4) for e in (solo, lane)}
        print(f"{name:30} {costs[name]}", flush=True)
    drawn = []
    for gain in gains(whole, options.seeds):
        print(gain, flush=True)
        drawn.append(gain)
    if options.output:
        report = {"date": date.today().isoformat(), "torch": torch.__version__, "costs": costs, "gains": drawn}
        options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
