"""Where packing pays: a short trial of strength between the solo engine's step and a lane's, on this device."""

import logging
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
from hpo.training.packed.bucket import Bucket
from hpo.training.packed.cnn import ConvImpl
from hpo.training.packed.cuda_graph import program_kind
from hpo.training.packed.network import inputs_of
from hpo.training.packed.program import Program, member_of
from hpo.training.packed.unit import SingleRun
from hpo.training.solo import run_kind

STEPS = 6
"""Steps of one round."""
ROUNDS = 4
LONG_ROUND = 0.02
"""Seconds; longer rounds are not repeated, for what disturbs them is a small part, and not tried in larger lanes."""
MARGIN = 0.9
"""A lane must take less than this part of the solo engine's time per trial: less could be chance."""
TOLERANCE = 0.01
"""What probabilities may differ by, on average, after a round: what computes something else is not used."""
JUDGED_ROWS = 256

_log = logging.getLogger(__name__)


class Plan(NamedTuple):
    """How the trials of a bucket are trained."""

    slots: int
    """Of a lane; 0 where trials are faster one by one."""
    way: ConvImpl = "grouped"
    """Of convolutions."""
    streams: bool = False
    """Whether there is no lane, but each trial by itself on a stream of a GPU."""


ALONE = Plan(0)


class Chooser:
    """Says how the trials of a bucket shall be trained, by a measurement that is made once for each bucket."""

    def __init__(self, device: torch.device, slots: int) -> None:
        self.device, self.slots = device, slots
        self.known: dict[tuple[Bucket, bool], Plan] = {}
        # Wide networks fall out of a CPU's cache when several take turns in it; so both ends are tried.
        self.sizes = (1, max(2, slots // 2)) if device.type == "cpu" else (max(2, slots // 4),)

    def __call__(self, config: TrialConfig, bucket: Bucket, data: ResidentData, packable: bool) -> Plan:
        """Return the plan for a bucket, of which a config is the first."""
        key = bucket, packable
        if key not in self.known:
            try:
                self.known[key] = self._measure(config, bucket, data, packable)
            except (RuntimeError, ValueError) as error:
                _log.warning("trials are trained one by one: %s", error)
                self.known[key] = ALONE
        return self.known[key]

    def _plans(self, config: TrialConfig, packable: bool, long: bool) -> list[Plan]:
        """Return what to measure beside the solo engine."""
        ways: tuple[ConvImpl, ...] = ("grouped", "unfolded") if isinstance(config.model, CNN) else ("grouped",)
        sizes = self.sizes[:1] if long else self.sizes
        plans = [Plan(size, way) for size in sizes for way in ways if size > 1 or way == "grouped"] if packable else []
        return plans + ([Plan(self.sizes[-1], streams=True)] if self.device.type == "cuda" else [])

    def _measure(self, config: TrialConfig, bucket: Bucket, data: ResidentData, packable: bool) -> Plan:
        few = _first_rows(data, STEPS * bucket.batch, JUDGED_ROWS)
        config = replace(config, epochs=100, patience=None, best_weights=False)
        if not self._plans(config, packable, long=False):
            return ALONE
        run, judged = run_kind(self.device)(config, few, self.device), few.validation_x
        sides: dict[Plan, Callable[[int], object]] = {ALONE: run.learn}
        times = {ALONE: [self._timed(run.learn, 0)]}
        expected = run.probabilities(judged)
        long = times[ALONE][0] >= LONG_ROUND
        for plan in self._plans(config, packable, long):
            sides[plan], probabilities = self._side(config, few, bucket, plan)
            times[plan] = [self._timed(sides[plan], 0)]
            if (difference := float(abs(probabilities(judged) - expected).mean())) > TOLERANCE:
                raise RuntimeError(f"packed networks differ from plain ones by {difference:g} on {self.device}")
        if not long:
            for epoch in range(1, ROUNDS + 1):  # in turn: what else the machine does meets all of them
                for plan, side in sides.items():
                    times[plan].append(self._timed(side, epoch))
        each = {plan: min(found) / max(1, plan.slots) for plan, found in times.items()}
        each[ALONE] *= MARGIN
        chosen = min(each, key=lambda plan: each[plan])
        return chosen if chosen.slots <= 1 else chosen._replace(slots=self.slots)

    def _side(
        self, config: TrialConfig, data: ResidentData, bucket: Bucket, plan: Plan
    ) -> tuple[Callable[[int], object], Callable[[Tensor], NDArray[np.float32]]]:
        """Return what trains an epoch of copies of a trial, and what tells the first one's probabilities."""
        if plan.streams:
            runs = [run_kind(self.device)(config, data, self.device) for _ in range(plan.slots)]
            units = [SingleRun(key, run, beside=True) for key, run in enumerate(runs)]
            return partial(_epoch_side_by_side, units), runs[0].probabilities
        model = build_model(config.model, data.input_shape, data.classes, seed=config.seed)
        members = [member_of(key, config, model, None, self.device) for key in range(plan.slots)]
        program = program_kind(self.device)(members, data, inputs_of(config, data.train_x), bucket, plan.way)

        def probabilities(x: Tensor) -> NDArray[np.float32]:
            found: NDArray[np.float32] = program.network.evaluate(inputs_of(config, x))[0].softmax(1).cpu().numpy()
            return found

        return partial(_epoch_of, program), probabilities

    def _timed(self, side: Callable[[int], object], epoch: int) -> float:
        """Return seconds; on a CPU only those in which this thread was at work."""
        clock = time.thread_time if self.device.type == "cpu" else time.perf_counter
        start = clock()
        side(epoch)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return clock() - start


def _epoch_of(program: Program, epoch: int) -> None:
    """Train an epoch; a program takes them as its members' courses tell, here the first one again and again."""
    program.train_epoch()
    program.join()


def _epoch_side_by_side(units: Sequence[SingleRun], epoch: int) -> None:
    for unit in units:
        unit.launch()
    for unit in units:
        unit.collect()


def _first_rows(data: ResidentData, train: int, validation: int) -> ResidentData:
    cut = replace(data, train_x=data.train_x[:train], train_y=data.train_y[:train])
    return replace(cut, validation_x=data.validation_x[:validation], validation_y=data.validation_y[:validation])
