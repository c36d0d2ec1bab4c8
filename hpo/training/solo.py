"""The solo engine: trains one trial at a time, as fast as a single network can be trained."""

import gc
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hpo.config import TrialConfig
from hpo.constraints import Cost, Costs
from hpo.errors import HpoError
from hpo.training.dataset import DataSets, ResidentData
from hpo.training.devices import set_up_device
from hpo.training.engine import Checkpoint, EpochResult, Examination, Facts, Fault, TrialFault
from hpo.training.epoch import Run
from hpo.training.graphed_run import GraphedRun
from hpo.training.model_cost import measure


class SoloEngine:
    """An `hpo.training.engine.Engine` that holds one trial. Data sets stay on the device between trials."""

    def __init__(self, device: torch.device) -> None:
        set_up_device(device)
        self.device = device
        self._data = DataSets(device)
        self._key: int | None = None
        self._run: Run | None = None

    @property
    def is_async(self) -> bool:
        """False: every draw is made with the result of the trial before it."""
        return False

    def room(self) -> int:
        """Return 1 if it holds no trial, else 0."""
        return 1 if self._run is None else 0

    def admit(self, key: int, config: TrialConfig, checkpoint: Checkpoint | None = None) -> Facts:
        """Take a trial, from its start or from a checkpoint. Raises: TrialFault; then it was not taken."""
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
        """Return the costs of an untrained network. Raises: TrialFault where they cannot be measured."""
        return measure_costs(config, wanted, self._data)

    def step(self) -> dict[int, EpochResult | Fault]:
        """Train an epoch of the trial; return its outcome by key, empty if there is no trial."""
        if self._run is None or self._key is None:
            return {}
        try:
            return {self._key: self._run.train_epoch()}
        except (RuntimeError, ValueError) as error:
            return {self._key: fault_of(error)}

    def snapshot(self, key: int) -> Checkpoint:
        """Return the trial's state after its latest completed epoch."""
        return self._of(key).checkpoint()

    def examine(self, key: int) -> Examination:
        """Evaluate the trial on training rows after its latest completed epoch."""
        return self._of(key).examine()

    def predict(self, key: int) -> NDArray[np.float32]:
        """Return the trial's probabilities on the validation rows: [rows, classes]."""
        run = self._of(key)
        return run.probabilities(run.data.validation_x)

    def evict(self, key: int) -> None:
        """Remove the trial and free its memory."""
        assert key == self._key
        self._free()

    def status(self) -> dict[str, float]:
        """Return nothing: there are no lanes."""
        return {}

    def _of(self, key: int) -> Run:
        assert key == self._key and self._run is not None
        return self._run

    def _free(self) -> None:
        self._run = self._key = None
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()


def measure_costs(config: TrialConfig, wanted: Sequence[Cost], data_sets: DataSets) -> Costs:
    """Return the costs of an untrained network. Raises: TrialFault where they cannot be measured."""
    try:
        data = data_sets.of(config)
        return measure(config, data.input_shape, data.classes, data_sets.device, wanted)
    except (HpoError, RuntimeError, ValueError) as error:
        raise TrialFault(fault_of(error)) from error


def run_kind(device: torch.device) -> type[Run]:
    """Return the class of run that is fastest on a device."""
    return GraphedRun if device.type == "cuda" else Run


def fault_of(error: Exception) -> Fault:
    """Return the fault of a trial whose training raised an exception."""
    kind = "oom" if isinstance(error, torch.OutOfMemoryError | MemoryError) else "error"
    return Fault(kind, f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}")  # type: ignore[arg-type]
