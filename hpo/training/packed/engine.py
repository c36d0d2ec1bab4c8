"""The packed engine: many small networks trained as few programs, their places refilled as trials end."""

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpo.config import Precision, TrialConfig
from hpo.constraints import Cost, Costs
from hpo.errors import HpoError
from hpo.models import build_model, parameter_count
from hpo.training.dataset import DataKey, DataSets, ResidentData
from hpo.training.devices import resolve_precision
from hpo.training.engine import Checkpoint, EpochResult, Examination, Facts, Fault, TrialFault
from hpo.training.packed.autotune import ALONE, Plan
from hpo.training.packed.bucket import Bucket, bucket_of, why_alone
from hpo.training.packed.lane import Lane
from hpo.training.packed.memory import slots_that_fit
from hpo.training.packed.merging import Merging
from hpo.training.packed.network import inputs_of
from hpo.training.packed.program import member_of
from hpo.training.packed.unit import SingleRun, Unit
from hpo.training.run import Run
from hpo.training.solo import fault_of, measured, run_kind

CPU_SLOTS, SLOTS = 8, 64
"""Trials that an engine holds: on a CPU more were measured to gain little; elsewhere it takes many to fill it."""

Planner = Callable[[TrialConfig, Bucket, ResidentData, bool], Plan]
"""How a bucket's trials are to be trained; the last argument says whether they can share a program."""

_log = logging.getLogger(__name__)


def default_slots(device: torch.device) -> int:
    """Return how many trials an engine holds on a device if nobody says otherwise."""
    return CPU_SLOTS if device.type == "cpu" else SLOTS


class PackedEngine:
    """Holds up to `slots` trials in lanes by bucket; what cannot be packed is trained alone, one at a time."""

    def __init__(self, device: torch.device, planner: Planner | None = None, slots: int | None = None) -> None:
        """`planner` says what is packed: everything that can be, if it is not given."""
        self.device = device
        self.slots = slots or default_slots(device)
        self.planner: Planner = planner or (
            lambda config, bucket, data, packable: Plan(self.slots) if packable else ALONE
        )
        self._data = DataSets(device)
        self._inputs: dict[tuple[DataKey, str], tuple[Tensor, Tensor]] = {}
        self._units: list[Unit] = []
        """In the order of their turns."""
        self._limits: dict[Bucket, int] = {}
        """Slots of a lane where memory has shown its end."""
        self._merging = Merging(self._seconds_of)
        self._turn_seconds = 0.0
        """Of the last turn of training."""
        self._busy = self._offered = 0.0
        """Seconds of all slots in which a trial was trained; seconds of all slots."""
        self._offer = 1
        """How many trials would be taken at once: what they are is known only once they are claimed."""

    @property
    def is_async(self) -> bool:
        return self.device.type != "cpu" and self.slots > 1

    def room(self) -> int:
        """Return how many trials would be taken: few until it has shown that trials can be packed.

        A trial that has to be trained alone would only wait for the one before it, so no more are taken than
        there is reason to believe in: the offer doubles with each trial that is packed, and begins anew with
        one that is not, be it alone in a lane of one slot. Beside one that is trained alone, one more is taken while
        others are packed.
        """
        held = self._held()
        alone = sum(not unit.shared for unit in self._units)
        if alone > 1 or (alone == 1 and held == 1):
            return 0
        return max(0, min(self.slots - held, 1 if alone else self._offer))

    def _held(self) -> int:
        return sum(len(unit.trials()) for unit in self._units)

    def admit(self, key: int, config: TrialConfig, checkpoint: Checkpoint | None = None) -> Facts:
        try:
            facts, packed = self._admit(key, config, checkpoint)
        except (HpoError, RuntimeError, ValueError) as error:
            raise TrialFault(fault_of(error)) from error
        self._offer = min(2 * self._offer, self.slots) if packed else 1
        return facts

    def _admit(self, key: int, config: TrialConfig, checkpoint: Checkpoint | None) -> tuple[Facts, bool]:
        data = self._data.of(config)
        precision = self._precision(config, data, checkpoint)
        bucket, packable = bucket_of(config, data, precision), why_alone(config, precision) is None
        plan = self.planner(config, bucket, data, packable)
        if plan.slots == 0 or plan.streams:
            run = run_kind(self.device)(config, data, self.device, checkpoint)
            self._units.append(SingleRun(key, run, beside=plan.slots > 0))
            return run.facts, plan.slots > 0
        lane = self._lane_for(config, bucket, data, plan)
        model = build_model(config.model, data.input_shape, data.classes, seed=config.seed)
        lane.admit(member_of(key, config, model, checkpoint, self.device))
        return Facts(parameter_count(model), str(self.device), precision), lane.shared

    def _precision(self, config: TrialConfig, data: ResidentData, checkpoint: Checkpoint | None) -> Precision:
        if checkpoint is not None:
            return "bf16" if checkpoint.precision == "bf16" else "fp32"
        batch = min(config.batch_size, len(data.train_y))
        return resolve_precision(config.precision, config.model, data.input_shape, batch, self.device)

    def _lane_for(self, config: TrialConfig, bucket: Bucket, data: ResidentData, plan: Plan) -> Lane:
        """Return a lane with a free slot, made if need be."""
        lanes = self._lanes()
        for lane in lanes:
            if lane.bucket == bucket and lane.room > 0:
                return lane
        if (wider := self._merging.home(bucket, lanes)) is not None:
            return wider
        fit = slots_that_fit(config, bucket, data, self.device)
        size = min(plan.slots, self._limits.get(bucket, self.slots), fit or self.slots)
        lane = Lane(bucket, size, data, *self._rows(config, bucket, data), plan.way)
        self._units.append(lane)
        return lane

    def _lanes(self) -> list[Lane]:
        return [unit for unit in self._units if isinstance(unit, Lane)]

    def _seconds_of(self, lanes: Sequence[Lane]) -> float | None:
        """Return what the last epoch of lanes took: of all, where all are trained side by side."""
        each = [lane.seconds for lane in lanes]
        if None in each:
            return None
        return self._turn_seconds if self.device.type != "cpu" else sum(s for s in each if s is not None)

    def _rows(self, config: TrialConfig, bucket: Bucket, data: ResidentData) -> tuple[Tensor, Tensor]:
        """Return training and validation rows as the networks of a bucket take them."""
        key = (bucket.data, config.model.family)
        if key not in self._inputs:
            self._inputs[key] = inputs_of(config, data.train_x), inputs_of(config, data.validation_x)
        return self._inputs[key]

    def measure(self, config: TrialConfig, wanted: Sequence[Cost]) -> Costs:
        return measured(config, wanted, self._data)

    def step(self) -> dict[int, EpochResult | Fault]:
        """Train an epoch of the lane or lone trial whose turn it is; on a GPU, of all of them side by side."""
        outcomes: dict[int, EpochResult | Fault] = {}
        start, held = time.perf_counter(), self._held()
        if (left := self._merging.begin(self._lanes())) is not None:
            self._units.remove(left)
        while not outcomes:
            turn_start = time.perf_counter()
            turn = [unit for unit in self._units if unit.live()]
            if not turn:
                break
            if self.device.type == "cpu":
                turn = turn[:1]
                self._units.remove(turn[0])
                self._units.append(turn[0])
            begun = [unit for unit in turn if self._guarded(unit, unit.launch, outcomes)]
            for unit in begun:
                self._guarded(unit, lambda unit=unit: outcomes.update(unit.collect()), outcomes)  # type: ignore[misc]
            self._turn_seconds = time.perf_counter() - turn_start
        if (parted := self._merging.judge()) is not None:
            self._units.append(parted)
        for unit in self._units:
            for key in unit.live():
                if isinstance(outcomes.get(key), Fault):
                    unit.end(key)
        seconds = time.perf_counter() - start
        if any(unit.shared for unit in self._units):
            self._busy, self._offered = self._busy + held * seconds, self._offered + self.slots * seconds
        return outcomes

    def _guarded(self, unit: Unit, action: Callable[[], None], outcomes: dict[int, EpochResult | Fault]) -> bool:
        """Do something; where it fails, halve the lane if it was memory, else note the fault of each trial."""
        try:
            action()
        except (RuntimeError, ValueError, MemoryError) as error:
            fault = fault_of(error)
            if fault.kind == "oom" and isinstance(unit, Lane) and len(unit.live()) > 1:
                self._units.append(unit.split())
                self._limits[unit.bucket] = unit.slots
                _log.warning("out of memory: lanes of %s now hold %d trials", unit.bucket, unit.slots)
            else:
                outcomes.update(dict.fromkeys(unit.live(), fault))
            return False
        return True

    def snapshot(self, key: int) -> Checkpoint:
        return self._of(key).checkpoint(key)

    def examine(self, key: int) -> Examination:
        return self._plain(key).examine()

    def predict(self, key: int) -> NDArray[np.float32]:
        run = self._plain(key)
        return run.probabilities(run.data.validation_x)

    def evict(self, key: int) -> None:
        unit = self._of(key)
        unit.evict(key)
        if not unit.trials():
            self._units.remove(unit)

    def status(self) -> dict[str, float]:
        """Return how many lanes there are, and the part of the slots in use while there were any."""
        lanes = sum(lane.shared for lane in self._lanes())
        return {"lanes": lanes} | ({"occupancy": round(self._busy / self._offered, 3)} if self._offered else {})

    def _of(self, key: int) -> Unit:
        return next(unit for unit in self._units if key in unit.trials())

    def _plain(self, key: int) -> Run:
        """Return a trial as the solo engine has it."""
        checkpoint = self.snapshot(key)
        return Run(checkpoint.config, self._data.of(checkpoint.config), self.device, checkpoint)
