"""Train a config once more, from the config alone, and read the test split: once, at the end."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from hpo import data
from hpo.config import TrialConfig
from hpo.errors import DataError, TrainingError
from hpo.training.contract import EpochResult, Fault
from hpo.training.dataset import resident, standardized
from hpo.training.run import Run

OnEpoch = Callable[[EpochResult], None]


def retrain(
    config: TrialConfig,
    device: torch.device,
    on_epoch: OnEpoch = lambda result: None,
    fingerprint: str | None = None,
) -> tuple[Run, dict[str, Any]]:
    """Train all epochs and evaluate on the test split; return the run and its metrics.

    Raises: DataError if the data is not the one of `fingerprint`, TrainingError if the training diverges.
    """
    info = data.info(config.data)
    data.fetch(info)
    parts = data.load_parts(info, config.split)
    if fingerprint is not None and parts.fingerprint != fingerprint:
        raise DataError(
            f"{config.data}: must have fingerprint {fingerprint[:16]}..., got {parts.fingerprint[:16]}...: "
            "the file was made from other data. Use the same data, or remove data_fingerprint from the file."
        )
    run = Run(config, resident(parts, device), device)
    for _ in range(config.epochs):
        result = run.train_epoch()
        if isinstance(result, Fault):
            raise TrainingError(f"training ended early: {result.message}. Lower the learning rate.")
        on_epoch(result)
    test = data.load_test(info)
    test_x, test_y = standardized(test, parts, device), torch.from_numpy(test.y).to(device)
    accuracy, loss = run.evaluate(test_x, test_y)
    metrics = {
        "test_accuracy": accuracy,
        "test_loss": loss,
        "test_rows": len(test_y),
        "validation_accuracy": run.history[-1].validation_accuracy,
        "train_accuracy": run.examine().train_accuracy,
        "parameters": run.facts.parameters,
        "device": run.facts.device,
        "precision": run.facts.precision,
        "data_fingerprint": parts.fingerprint,
        "epochs": [dataclasses.asdict(result) for result in run.history],
    }
    return run, metrics


def save(run: Run, metrics: dict[str, Any], config_file: str, folder: Path) -> None:
    """Write weights, config and metrics into a folder. Raises: TrainingError if it cannot be written."""
    weights = {name: value.detach().cpu().contiguous() for name, value in run.model.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_bytes(safetensors.torch.save(weights))
        (folder / "config.toml").write_text(config_file, encoding="utf-8")
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written: {error.strerror}. Choose another -o.") from error
