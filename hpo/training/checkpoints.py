"""Checkpoints as bytes: safetensors, with config and history as JSON in its header. Nothing is pickled."""

import dataclasses
import json

import safetensors
import safetensors.numpy

from hpo.config import TrialConfig
from hpo.errors import TrainingError
from hpo.training.engine import Checkpoint, EpochResult


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """Return a checkpoint as the content of a file."""
    about = {
        "config": json.dumps(checkpoint.config.to_dict()),
        "history": json.dumps([dataclasses.asdict(result) for result in checkpoint.history]),
        "precision": checkpoint.precision,
    }
    return bytes(safetensors.numpy.save(dict(checkpoint.tensors), metadata=about))


def from_bytes(content: bytes, where: str) -> Checkpoint:
    """Return the checkpoint that `to_bytes` gave. Raises: TrainingError, naming `where`, for a damaged one."""
    try:
        tensors = safetensors.numpy.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        about = header["__metadata__"]
        history = tuple(EpochResult(**result) for result in json.loads(about["history"]))
        config = TrialConfig.from_dict(json.loads(about["config"]), where)
        return Checkpoint(config, tensors, history, about["precision"])
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{where}: must be a checkpoint of hpo's, got a damaged file ({error}). Delete it."
        ) from error
