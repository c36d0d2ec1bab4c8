"""The packed engine: trains many small networks as few programs, and refills their slots as trials end."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hpo.config import Precision, TrialConfig
from hpo.constraints import Cost, Costs
from hpo.errors import HpoError
from hpo.models import build_model, parameter_count
from hpo.training.dataset import DataSets, ResidentData
from hpo.training.devices import resolve_precision, resumed_precision, set_up_device
from hpo.training.engine import Checkpoint, DeviceUnusable, EpochResult, Examination, Facts, Fault, TrialFault
from hpo.training.epoch import Run
from hpo.training.packed.compute.program import member_of
from hpo.training.packed.layout.bucket import Bucket, bucket_of, why_not_packed
from hpo.training.packed.scheduling.autotune import UNPACKED, Plan
from hpo.training.packed.scheduling.lane import Lane
from hpo.training.packed.scheduling.lane_factory import LaneFactory
from hpo.training.packed.scheduling.turns import Turns
from hpo.training.packed.scheduling.unit import SingleRun
from hpo.training.packed.scheduling.unit_queue import UnitQueue
from hpo.training.solo import fault_of, measure_costs, run_kind

CPU_SLOTS, SLOTS = 8, 64
"""Trials that an engine holds, on a CPU and on other devices. On a CPU, more were measured to gain little."""


class Planner(Protocol):
    """Decides how the trials of a bucket are trained."""

    def __call__(self, config: TrialConfig, bucket: Bucket, data: ResidentData, *, packable: bool) -> Plan:
        """Return the plan for a bucket, of which `config` is one trial; `packable` if they can share a program."""
        ...


def default_slots(device: torch.device) -> int:
    """Return how many trials an engine on a device holds unless another number is given."""
    return CPU_SLOTS if device.type == "cpu" else SLOTS


class PackedEngine:
    """An `hpo.training.engine.Engine` that trains the trials of a bucket together, in lanes of up to `slots` trials.

    Trials that cannot be packed are trained one at a time.
    """

    def __init__(self, device: torch.device, planner: Planner | None = None, slots: int | None = None) -> None:
        """Make an empty engine. Without a planner, everything that can be packed is packed."""
        set_up_device(device)
        self.device = device
        self.slots = slots or default_slots(device)
        self.planner: Planner = planner or self._pack_all
        self.units = UnitQueue(device)
        self._data = DataSets(device)
        self._lanes = LaneFactory(device, self.slots)
        self.turns = Turns(self.units, self._lanes.limit)
        self._offer = 1
        """How many further trials would be taken at once: only an admitted trial shows whether it can be packed."""

    def _pack_all(self, config: TrialConfig, bucket: Bucket, data: ResidentData, *, packable: bool) -> Plan:
        return Plan(self.slots) if packable else UNPACKED

    @property
    def is_async(self) -> bool:
        """Whether `step` only waits for a device that trains many trials."""
        return self.device.type != "cpu" and self.slots > 1

    def room(self) -> int:
        """Return how many further trials would be taken now: few until it is known that they can be packed.

        A trial that is trained by itself waits for the one before it, so only as many are taken as are likely to be
        packed: the offer doubles with each trial that is packed, and is 1 again after a trial that is not (or whose
        lane has a single slot). While one trial is trained by itself, one more is taken if others are packed.
        """
        held = self.units.trial_count()
        unpacked = sum(not unit.shared for unit in self.units)
        if unpacked > 1 or (unpacked == 1 and held == 1):
            return 0
        return max(0, min(self.slots - held, 1 if unpacked else self._offer))

    def admit(self, key: int, config: TrialConfig, checkpoint: Checkpoint | None = None) -> Facts:
        """Take a trial, from its start or from a checkpoint. Raises: TrialFault; then it was not taken."""
        try:
            facts, packed = self._admit(key, config, checkpoint)
        except DeviceUnusable:
            raise
        except (HpoError, RuntimeError, ValueError) as error:
            raise TrialFault(fault_of(error)) from error
        self._offer = min(2 * self._offer, self.slots) if packed else 1
        return facts

    def _admit(self, key: int, config: TrialConfig, checkpoint: Checkpoint | None) -> tuple[Facts, bool]:
        data = self.data(config)
        precision = self._precision(config, data, checkpoint)
        bucket, packable = bucket_of(config, data, precision), why_not_packed(config, precision) is None
        plan = self.planner(config, bucket, data, packable=packable)
        if plan.slots == 0 or plan.streams:
            run = run_kind(self.device)(config, data, self.device, checkpoint)
            self.units.add(SingleRun(key, run, concurrent=plan.slots > 0))
            return run.facts, plan.slots > 0
        lane = self._lane_for(config, bucket, data, plan)
        model = build_model(config.model, data.input_shape, data.classes, seed=config.seed)
        lane.admit(member_of(key, config, model, checkpoint, self.device))
        return Facts(parameter_count(model), str(self.device), precision), lane.shared

    def _precision(self, config: TrialConfig, data: ResidentData, checkpoint: Checkpoint | None) -> Precision:
        if checkpoint is not None:
            return resumed_precision(checkpoint.precision, self.device)
        batch = min(config.batch_size, len(data.train_y))
        return resolve_precision(config.precision, config.model, data.input_shape, batch, self.device)

    def _lane_for(self, config: TrialConfig, bucket: Bucket, data: ResidentData, plan: Plan) -> Lane:
        """Return a lane with a free slot for a trial of a bucket; make one if there is none."""
        lanes = self.units.lanes()
        for lane in lanes:
            if lane.bucket == bucket and lane.room > 0:
                return lane
        if (wider := self.turns.merging.lane_for(bucket, lanes)) is not None:
            return wider
        lane = self._lanes.make(config, bucket, data, plan)
        self.units.add(lane)
        return lane

    def data(self, config: TrialConfig) -> ResidentData:
        """Return a config's data, resident on the device. Raises: DataError."""
        return self._data.of(config)

    def measure(self, config: TrialConfig, wanted: Sequence[Cost]) -> Costs:
        """Return the costs of an untrained network. Raises: TrialFault where they cannot be measured."""
        return measure_costs(config, wanted, self._data)

    def step(self) -> dict[int, EpochResult | Fault]:
        """Train until an epoch of a unit is computed; return the outcome of each trial in it."""
        start, held = time.perf_counter(), self.units.trial_count()
        outcomes = self.turns.step()
        self.units.note_use(trials=held, slots=self.slots, seconds=time.perf_counter() - start)
        return outcomes

    def snapshot(self, key: int) -> Checkpoint:
        """Return a trial's state after its latest completed epoch."""
        return self.turns.between_epochs(key).checkpoint(key)

    def examine(self, key: int) -> Examination:
        """Evaluate a trial on training rows after its latest completed epoch."""
        examined = self._plain(key).examine()
        return replace(examined, graph_failure=self.units.unit_of(key).graph_failure())

    def predict(self, key: int) -> NDArray[np.float32]:
        """Return a trial's probabilities on the validation rows: [rows, classes]."""
        run = self._plain(key)
        return run.probabilities(run.data.validation_x)

    def evict(self, key: int) -> None:
        """Remove a trial and free its memory."""
        self.turns.evict(key)

    def status(self) -> dict[str, float]:
        """Return the number of `lanes`, and the mean `occupancy` of the slots while there were shared units."""
        return self.units.status()

    def _plain(self, key: int) -> Run:
        """Return a trial as a run of the solo engine."""
        checkpoint = self.snapshot(key)
        return Run(checkpoint.config, self.data(checkpoint.config), self.device, checkpoint)
