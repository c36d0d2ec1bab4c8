"""Checkpoints as bytes: the safetensors format, with config and history as JSON in its header. Nothing is pickled."""

import dataclasses
import json

import safetensors
import safetensors.numpy

from hpo import documents
from hpo.config import TrialConfig
from hpo.errors import HpoError, TrainingError
from hpo.text import one_line
from hpo.training.engine import Checkpoint, EpochResult


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """Return a checkpoint as the content of a safetensors file."""
    metadata = {
        "config": json.dumps(checkpoint.config.to_dict()),
        "history": json.dumps([dataclasses.asdict(result) for result in checkpoint.history]),
        "precision": checkpoint.precision,
    }
    return bytes(safetensors.numpy.save(dict(checkpoint.tensors), metadata=metadata))


def from_bytes(content: bytes, where: str) -> Checkpoint:
    """Return the checkpoint in what `to_bytes` returned. Raises: TrainingError, which names `where`, if damaged."""
    try:
        tensors = safetensors.numpy.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header["__metadata__"]
        history = tuple(documents.check(EpochResult, result, "history") for result in json.loads(metadata["history"]))
        config = TrialConfig.from_dict(json.loads(metadata["config"]), "config")
        return Checkpoint(config, tensors, history, metadata["precision"])
    except (safetensors.SafetensorError, HpoError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise TrainingError(
            f"{where}: must be a checkpoint written by hpo, got a damaged file ({one_line(str(error))[:200]}). "
            "Delete it."
        ) from error
