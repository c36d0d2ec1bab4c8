"""Whether packing is faster: the step of the solo engine and that of lanes, measured on this device."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpo.config import CNN, TrialConfig
from hpo.models import build_model
from hpo.training.dataset import ResidentData
from hpo.training.epoch import Run
from hpo.training.packed.compute.cnn import ConvImpl
from hpo.training.packed.compute.graphed_program import program_kind
from hpo.training.packed.compute.network import inputs_of
from hpo.training.packed.compute.program import Program, member_of
from hpo.training.packed.layout.bucket import Bucket
from hpo.training.solo import run_kind

CPU_STEPS, STEPS = 6, 50
"""Training steps of one timed round, on a CPU and on other devices."""
ROUNDS = 4
"""Least number of timed rounds of each candidate after the first, which is not timed: in it a GPU records graphs."""
TIMED_STEPS = 200
"""Least number of timed steps on other devices than a CPU, whose rounds may be short for want of rows."""
LONG_ROUND = 0.02
"""On a CPU, seconds from which on a round is not repeated, as disturbances are a small part of it, and only the
smallest lanes are measured: then the first round is the one that counts."""
MARGIN = 2 / 3
"""A lane must take less than this share of the solo engine's time per trial. Trials that run at once are drawn without
each other's results, so a small gain in speed finds nothing sooner. The value is a judgment, not measured."""
TOLERANCE = 0.01
"""Largest mean difference of probabilities after a round; a lane that computes something else is not used."""
RATES = {"adam": 3e-3, "adamw": 3e-3, "rmsprop": 3e-4}
"""Largest learning rates of what is measured, by optimizer. The gradient of a bias before a batch norm is rounding
alone, of which these optimizers make steps as long as any: with a rate of 0.09, two right ways of computing 16-80 lie
0.05 apart after one round, with these at most 0.0011 (400 draws of `ann_digits`)."""
COMPARED_ROWS = 256

_log = logging.getLogger(__name__)


class Plan(NamedTuple):
    """How the trials of a bucket are trained."""

    slots: int
    """Slots of a lane; 0 where trials are faster one by one."""
    conv_impl: ConvImpl = "grouped"
    """Implementation of the convolutions."""
    streams: bool = False
    """Whether each trial is trained by itself, on its own stream of a GPU, instead of in a lane."""


UNPACKED = Plan(0)
"""Trials are trained one by one."""


class Chooser:
    """A planner that measures, once for each bucket, how its trials are trained fastest."""

    def __init__(self, device: torch.device, slots: int) -> None:
        """`slots` is the largest size of a lane."""
        self.device, self.slots = device, slots
        self.known: dict[tuple[Bucket, bool], Plan] = {}
        # Several wide networks do not fit in a CPU's cache together, so both a small and a large lane are measured.
        self.sizes = (1, max(2, slots // 2)) if device.type == "cpu" else (max(2, slots // 4),)

    def __call__(self, config: TrialConfig, bucket: Bucket, data: ResidentData, *, packable: bool) -> Plan:
        """Return the plan for a bucket, of which `config` is one trial; `packable` if they can share a program."""
        name, cut, share, size = bucket.data
        any_cut = replace(bucket, data=(name, replace(cut, seed=0), share, size))  # which rows it has does not matter
        key = any_cut, packable
        if key not in self.known:
            try:
                self.known[key] = self._measure(config, bucket, data, packable=packable)
            except (RuntimeError, ValueError) as error:
                _log.warning("trials are trained one by one: %s", error)
                self.known[key] = UNPACKED
        return self.known[key]

    def _candidates(self, config: TrialConfig, *, packable: bool, long: bool) -> list[Plan]:
        """Return the plans to compare with training one by one."""
        impls: tuple[ConvImpl, ...] = ("grouped", "unfolded") if isinstance(config.model, CNN) else ("grouped",)
        sizes = self.sizes[:1] if long else self.sizes
        lanes = [Plan(size, impl) for size in sizes for impl in impls if size > 1 or impl == "grouped"]
        streams = [Plan(self.sizes[-1], streams=True)] if self.device.type == "cuda" else []
        return [*(lanes if packable else []), *streams]

    def _measure(self, config: TrialConfig, bucket: Bucket, data: ResidentData, *, packable: bool) -> Plan:
        on_cpu = self.device.type == "cpu"
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # otherwise lanes that have an epoch under way disturb the clock
        steps, timed = rounds_of(self.device, len(data.train_y) // bucket.batch)
        few = _first_rows(data, steps * bucket.batch, COMPARED_ROWS)
        optimizer = replace(config.optimizer, lr=min(config.optimizer.lr, RATES.get(config.optimizer.name, math.inf)))
        config = replace(config, optimizer=optimizer, epochs=100, patience=None, best_weights=False)
        if not self._candidates(config, packable=packable, long=False):
            return UNPACKED
        run, rows = run_kind(self.device)(config, few, self.device), few.validation_x
        rounds: dict[Plan, Callable[[int], object]] = {UNPACKED: run.train_only}
        first = {UNPACKED: self._seconds(run.train_only, 0)}
        expected = run.probabilities(rows)
        long = on_cpu and first[UNPACKED] >= LONG_ROUND
        for plan in self._candidates(config, packable=packable, long=long):
            rounds[plan], probabilities = self._candidate(config, few, bucket, plan)
            first[plan] = self._seconds(rounds[plan], 0)
            if (difference := float(abs(probabilities(rows) - expected).mean())) > TOLERANCE:
                raise RuntimeError(f"packed networks differ from plain ones by {difference:g} on {self.device}")
        seconds = first if long else self._fastest(rounds, timed)
        per_trial = {plan: fastest / max(1, plan.slots) for plan, fastest in seconds.items()}
        per_trial[UNPACKED] *= MARGIN
        fastest = min(per_trial, key=lambda plan: per_trial[plan])
        return fastest if fastest.slots <= 1 else fastest._replace(slots=self.slots)

    def _fastest(self, rounds: dict[Plan, Callable[[int], object]], timed: int) -> dict[Plan, float]:
        """Return the duration of each candidate's fastest round, in turn: other load on the machine affects all."""
        times: dict[Plan, list[float]] = {plan: [] for plan in rounds}
        for epoch in range(1, timed + 1):
            for plan, train_round in rounds.items():
                times[plan].append(self._seconds(train_round, epoch))
        return {plan: min(seconds) for plan, seconds in times.items()}

    def _candidate(
        self, config: TrialConfig, data: ResidentData, bucket: Bucket, plan: Plan
    ) -> tuple[Callable[[int], object], Callable[[Tensor], NDArray[np.float32]]]:
        """Return a function that trains an epoch of copies of a trial, and one for the first copy's probabilities."""
        if plan.streams:
            runs = [run_kind(self.device)(config, data, self.device) for _ in range(plan.slots)]
            return partial(_train_concurrently, runs), runs[0].probabilities
        model = build_model(config.model, data.input_shape, data.classes, seed=config.seed)
        members = [member_of(key, config, model, None, self.device) for key in range(plan.slots)]
        inputs = inputs_of(config, data.train_x)
        program = program_kind(self.device)(members, data, inputs, bucket, conv_impl=plan.conv_impl)

        def probabilities(x: Tensor) -> NDArray[np.float32]:
            logits = program.evaluate(inputs_of(config, x))[0]
            of_classes: NDArray[np.float32] = logits.softmax(1).cpu().numpy()
            return of_classes

        return partial(_train_program, program), probabilities

    def _seconds(self, train_round: Callable[[int], object], epoch: int) -> float:
        """Return the duration of a round; on a CPU the CPU time of this thread."""
        clock = time.thread_time if self.device.type == "cpu" else time.perf_counter
        start = clock()
        train_round(epoch)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return clock() - start


def rounds_of(device: torch.device, steps: int) -> tuple[int, int]:
    """Return the steps of a round, of at most `steps`, and how many rounds are timed."""
    if device.type == "cpu":
        return min(CPU_STEPS, steps), ROUNDS
    in_round = max(1, min(STEPS, steps))
    return in_round, max(ROUNDS, -(-TIMED_STEPS // in_round))


def _train_program(program: Program, epoch: int) -> None:
    """Train an epoch of a program: always the first one, as its members' histories stay empty."""
    program.train_epoch()
    program.join()
    program.training_scores()


def _train_concurrently(runs: Sequence[Run], epoch: int) -> None:
    """Train an epoch of each run, on a GPU at the same time."""
    started = [run.start_epoch(epoch) for run in runs]
    for run, steps in zip(runs, started, strict=True):
        run.training_scores(steps)


def _first_rows(data: ResidentData, train: int, validation: int) -> ResidentData:
    cut = replace(data, train_x=data.train_x[:train], train_y=data.train_y[:train])
    return replace(cut, validation_x=data.validation_x[:validation], validation_y=data.validation_y[:validation])
