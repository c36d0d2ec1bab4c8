"""One configuration trained again: resumed after a kill, with or without the validation rows."""

import dataclasses
from pathlib import Path

import pytest
import torch

from hpo.config import EMA, TrialConfig
from hpo.results import retrain
from hpo.training.engine import EpochResult
from tests.helpers.retraining import CPU, MLP_CONFIG, trained

AVERAGED = dataclasses.replace(MLP_CONFIG, average=EMA(0.5))


@pytest.mark.parametrize("config", [MLP_CONFIG, AVERAGED], ids=["plain", "averaged"])
def test_a_killed_training_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: TrialConfig
) -> None:
    monkeypatch.setattr(retrain, "SAVE_SECONDS", 0.0)
    whole, _ = trained(config, tmp_path / "whole")

    class Killed(BaseException):
        pass

    def kill(result: EpochResult) -> None:
        if result.epoch == 4:
            raise Killed

    with pytest.raises(Killed):
        retrain.retrain(config, whole.parts, CPU, tmp_path / "cut", on_epoch=kill)
    seen: list[int] = []
    again = retrain.retrain(config, whole.parts, CPU, tmp_path / "cut", on_epoch=lambda r: seen.append(r.epoch))
    assert seen == [1, 2, 3, 4, 5, 6]
    for name, value in whole.run.model.state_dict().items():
        assert torch.equal(value, again.run.model.state_dict()[name])


def test_training_on_validation_too_uses_every_row(tmp_path: Path) -> None:
    _, metrics = trained(dataclasses.replace(MLP_CONFIG, epochs=2), tmp_path, with_validation=True)
    assert metrics["trained_on_rows"] == 1437 and metrics["validation_accuracy"] is None
    assert set(metrics["curves"]) == {"train_accuracy", "train_loss"}
