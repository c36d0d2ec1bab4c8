"""Train a config again, from the config alone."""

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hpo import data
from hpo.artifacts import FolderFiles
from hpo.config import PythonNetwork, TrialConfig
from hpo.data import Inputs, Parts
from hpo.errors import DataError, TrainingError
from hpo.machine import memory
from hpo.text import one_line
from hpo.training import checkpoints
from hpo.training.dataset import ResidentData, resident, scaled, standardized
from hpo.training.devices import set_up_device
from hpo.training.engine import Checkpoint, EpochResult, Fault
from hpo.training.epoch import Run
from hpo.training.model_cost import memory_mb

OnEpoch = Callable[[EpochResult], None]
SAVE_SECONDS = 10.0
"""Most seconds of a training that a kill can cost, if an epoch is shorter."""


@dataclass(frozen=True)
class Trained:
    """A network at the end of its training."""

    run: Run
    parts: Parts
    with_validation: bool
    """Whether it was trained on the validation rows too: then its validation scores mean nothing."""


def further_seed(seed: int, number: int) -> int:
    """Return the seed of another training of the same config: 1, 2, ..."""
    return (seed + 1_000_003 * number) % 2**31


def load_data(config: TrialConfig, fingerprint: str | None) -> Parts:
    """Return a config's data. Raises: DataError if it is missing, damaged, or has another fingerprint."""
    info = data.info(config.data)
    data.fetch(info)
    parts = data.load_parts(info, config.split)
    if fingerprint is not None and parts.fingerprint != fingerprint:
        raise DataError(
            f"{info.name}: must have fingerprint {fingerprint[:16]}..., got {parts.fingerprint[:16]}...: "
            "the file was made from other data. Use the same data, or remove data_fingerprint from the file."
        )
    return parts


def check_size(config: TrialConfig, parts: Parts, device: torch.device) -> None:
    """Refuse a config whose training this machine cannot hold, before it tries. Raises: TrainingError."""
    shape, rows = config.input_shape(parts.info.input_shape), len(parts.train.y) + len(parts.validation.y)
    needed = 4.0 * rows * math.prod(shape)
    if not isinstance(config.model, PythonNetwork):
        try:
            batch = dataclasses.replace(config, batch_size=min(config.batch_size, rows))
            needed += 1e6 * memory_mb(batch, shape, len(parts.info.classes))
        except (RuntimeError, OverflowError):  # more numbers than torch can count
            needed = math.inf
    # The memory of other devices is not known here; they refuse what they cannot hold.
    available = memory() if device.type == "cpu" else 16 * memory()
    if needed > available:
        raise TrainingError(
            f"config: must fit into the memory of {memory() / 1e9:.0f} GB, got {needed / 1e9:.3g} GB for its weights, "
            "batches and rows. Lower its widths, batch_size or image_size."
        )


def retrain(
    config: TrialConfig,
    parts: Parts,
    device: torch.device,
    folder: Path,
    *,
    with_validation: bool = False,
    on_epoch: OnEpoch = lambda result: None,
) -> Trained:
    """Train to the end; a training that was killed resumes from its file in the folder.

    `with_validation` trains on the validation rows too: then all epochs are trained, and the last weights are kept.

    Raises: TrainingError if the training diverges or needs too much memory, or the folder cannot be written.
    """
    set_up_device(device)
    check_size(config, parts, device)
    if with_validation:
        config = dataclasses.replace(config, patience=None, best_weights=False)
    files, name = FolderFiles(folder), unfinished_name(config, with_validation=with_validation)
    try:
        content = files.read(name)
        checkpoint = None if content is None else checkpoints.from_bytes(content, str(folder / name))
        if checkpoint is not None and checkpoint.config != config:
            checkpoint = None
        rows = _everything(parts, config, device) if with_validation else resident(parts, config, device)
        run = _resumed(config, rows, device, checkpoint, folder / name)
        for result in run.history:
            on_epoch(result)
        saved = time.monotonic()
        while not run.finished:
            outcome = run.train_epoch()
            if isinstance(outcome, Fault):
                raise TrainingError(f"training ended early: {outcome.message}. Lower the learning rate.")
            on_epoch(outcome)
            if time.monotonic() - saved >= SAVE_SECONDS or run.finished:
                files.write(name, _saved(run))
                saved = time.monotonic()
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written: {error.strerror or error}. Choose another -o.") from error
    return Trained(run, parts, with_validation)


def _resumed(
    config: TrialConfig, rows: ResidentData, device: torch.device, checkpoint: Checkpoint | None, path: Path
) -> Run:
    """Return a training at its beginning, or where a checkpoint left it. Raises: TrainingError if it does not fit."""
    if checkpoint is None:
        return Run(config, rows, device)
    try:
        return Run(config, rows, device, checkpoint)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{path}: must be the state of this training, got other tensors ({one_line(str(error))[:200]}). Delete it."
        ) from error


def _saved(run: Run) -> bytes:
    checkpoint: Checkpoint = run.checkpoint()
    return checkpoints.to_bytes(checkpoint)


def unfinished_name(config: TrialConfig, *, with_validation: bool) -> str:
    """Return the name of the file that holds the state of a training in progress."""
    return f".unfinished-{config.seed}{'-all' if with_validation else ''}.safetensors"


def _everything(parts: Parts, config: TrialConfig, device: torch.device) -> ResidentData:
    apart = resident(parts, config, device)
    return dataclasses.replace(
        apart,
        train_x=torch.cat([apart.train_x, apart.validation_x]),
        train_y=torch.cat([apart.train_y, apart.validation_y]),
    )


def probabilities(trained: Trained, rows: Inputs) -> NDArray[np.float32]:
    """Return a network's probabilities: float32 [rows, classes]."""
    return trained.run.probabilities(scaled(standardized(rows, trained.parts, trained.run.device), trained.run.config))
