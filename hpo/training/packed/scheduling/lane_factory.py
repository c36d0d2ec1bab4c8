"""Which lane a new trial joins, and how large a new lane is."""

import torch
from torch import Tensor

from hpo.config import TrialConfig
from hpo.training.dataset import DataKey, ResidentData
from hpo.training.packed.compute.network import inputs_of
from hpo.training.packed.layout.bucket import Bucket
from hpo.training.packed.scheduling.autotune import Plan
from hpo.training.packed.scheduling.foresight import Foresight
from hpo.training.packed.scheduling.lane import Lane
from hpo.training.packed.scheduling.slot_memory import slots_that_fit


class LaneFactory:
    """Makes lanes that fit in memory, with their rows in the form that their networks take."""

    def __init__(self, device: torch.device, slots: int) -> None:
        """`slots` is the largest size of a lane."""
        self.device, self.slots = device, slots
        self._limits: dict[Bucket, int] = {}
        self._foresight: dict[Bucket, Foresight] = {}
        self._inputs: dict[tuple[DataKey, str], tuple[Tensor, Tensor]] = {}

    def make(self, config: TrialConfig, bucket: Bucket, data: ResidentData, plan: Plan) -> Lane:
        """Return an empty lane for a bucket, of which `config` is one trial."""
        fit = slots_that_fit(config, bucket, data, self.device)
        size = min(plan.slots, self._limits.get(bucket, self.slots), fit or self.slots)
        foresight = self._foresight.setdefault(bucket, Foresight())
        rows = self._rows(config, bucket, data)
        return Lane(bucket, size, data, *rows, conv_impl=plan.conv_impl, foresight=foresight)

    def limit(self, bucket: Bucket, slots: int) -> None:
        """Make later lanes of a bucket no larger than this: a larger one ran out of memory."""
        self._limits[bucket] = slots

    def _rows(self, config: TrialConfig, bucket: Bucket, data: ResidentData) -> tuple[Tensor, Tensor]:
        """Return training and validation rows in the form that the networks of a bucket take."""
        key = (bucket.data, config.model.family)
        if key not in self._inputs:
            self._inputs[key] = inputs_of(config, data.train_x), inputs_of(config, data.validation_x)
        return self._inputs[key]
