"""The solo engine: one trial at a time, each as fast as one network alone can be trained."""

import gc
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hpo.config import TrialConfig
from hpo.constraints import Cost, Costs
from hpo.errors import HpoError
from hpo.training.cuda_graph import GraphedRun
from hpo.training.dataset import DataSets, ResidentData
from hpo.training.engine import Checkpoint, EpochResult, Examination, Facts, Fault, TrialFault
from hpo.training.model_cost import measure
from hpo.training.run import Run


class SoloEngine:
    """Holds one trial. Data sets stay resident on the device from one trial to the next."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._data = DataSets(device)
        self._key: int | None = None
        self._run: Run | None = None

    @property
    def is_async(self) -> bool:
        return False  # a draw learns from the one trial before it

    def room(self) -> int:
        return 1 if self._run is None else 0

    def admit(self, key: int, config: TrialConfig, checkpoint: Checkpoint | None = None) -> Facts:
        assert self._run is None
        try:
            self._run = self._start(config, checkpoint)
        except (HpoError, RuntimeError, ValueError) as error:
            self._free()
            raise TrialFault(fault_of(error)) from error
        self._key = key
        return self._run.facts

    def _start(self, config: TrialConfig, checkpoint: Checkpoint | None) -> Run:
        return run_kind(self.device)(config, self.data(config), self.device, checkpoint)

    def data(self, config: TrialConfig) -> ResidentData:
        """Return a config's data, resident on the device. Raises: DataError."""
        return self._data.of(config)

    def measure(self, config: TrialConfig, wanted: Sequence[Cost]) -> Costs:
        return measured(config, wanted, self._data)

    def step(self) -> dict[int, EpochResult | Fault]:
        if self._run is None or self._key is None:
            return {}
        try:
            return {self._key: self._run.train_epoch()}
        except (RuntimeError, ValueError) as error:
            return {self._key: fault_of(error)}

    def snapshot(self, key: int) -> Checkpoint:
        return self._of(key).checkpoint()

    def examine(self, key: int) -> Examination:
        return self._of(key).examine()

    def predict(self, key: int) -> NDArray[np.float32]:
        run = self._of(key)
        return run.probabilities(run.data.validation_x)

    def evict(self, key: int) -> None:
        assert key == self._key
        self._free()

    def status(self) -> dict[str, float]:
        return {}

    def _of(self, key: int) -> Run:
        assert key == self._key and self._run is not None
        return self._run

    def _free(self) -> None:
        self._run = self._key = None
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()


def measured(config: TrialConfig, wanted: Sequence[Cost], data_sets: DataSets) -> Costs:
    """Return what an untrained network costs. Raises: TrialFault where that cannot be told."""
    try:
        data = data_sets.of(config)
        return measure(config, data.input_shape, data.classes, data_sets.device, wanted)
    except (HpoError, RuntimeError, ValueError) as error:
        raise TrialFault(fault_of(error)) from error


def run_kind(device: torch.device) -> type[Run]:
    """Return the kind of run that is fastest on a device."""
    return GraphedRun if device.type == "cuda" else Run


def fault_of(error: Exception) -> Fault:
    """Return what an exception in training means for its trial."""
    kind = "oom" if isinstance(error, torch.OutOfMemoryError | MemoryError) else "error"
    return Fault(kind, f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}")  # type: ignore[arg-type]
