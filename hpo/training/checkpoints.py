"""Checkpoints as files: safetensors, with the history as JSON beside the tensors. Nothing is pickled."""

import contextlib
import dataclasses
import json
import os
from pathlib import Path

import safetensors
import safetensors.numpy

from hpo.config import TrialConfig
from hpo.errors import TrainingError
from hpo.training.contract import Checkpoint, EpochResult


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """Return a checkpoint as the content of a file."""
    about = {
        "config": json.dumps(checkpoint.config.to_dict()),
        "history": json.dumps([dataclasses.asdict(result) for result in checkpoint.history]),
        "precision": checkpoint.precision,
    }
    return bytes(safetensors.numpy.save(dict(checkpoint.tensors), metadata=about))


def write(path: Path, content: bytes) -> None:
    """Write a file aside and rename it: whoever reads it finds the old one or the new one. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def read(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises: FileNotFoundError; TrainingError for a damaged file."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        history = tuple(EpochResult(**result) for result in json.loads(about["history"]))
        config = TrialConfig.from_dict(json.loads(about["config"]), str(path))
        return Checkpoint(config, tensors, history, about["precision"])
    except FileNotFoundError:
        raise
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise TrainingError(
            f"{path}: must be a checkpoint of hpo's, got a damaged file ({error}). Delete it."
        ) from error
