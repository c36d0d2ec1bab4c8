"""A small configuration of digits, and its training with a test evaluation."""

from pathlib import Path
from typing import Any

import torch

from hpo.config import (
    MLP,
    AdamW,
    OneCycle,
    TrialConfig,
)
from hpo.results import retrain, test_evaluation

CPU = torch.device("cpu")


MLP_CONFIG = TrialConfig(
    data="digits",
    model=MLP(widths=(32, 16), dropout=(0.1, 0.0), norm="batch", activation="gelu"),
    optimizer=AdamW(lr=0.01, weight_decay=1e-3),
    batch_size=32,
    epochs=6,
    schedule=OneCycle(),
    seed=3,
)


def trained(config: TrialConfig, at: Path, *, with_validation: bool = False) -> tuple[retrain.Trained, dict[str, Any]]:
    run = retrain.retrain(config, retrain.load_data(config, None), CPU, at, with_validation=with_validation)
    return test_evaluation.evaluate_on_test([run], None)
