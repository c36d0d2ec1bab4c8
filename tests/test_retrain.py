"""One configuration trained again: resumed after a kill, with or without the validation rows."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.datasets import load_digits

from hpo import data
from hpo.cli.render.model import print_test_scores
from hpo.config import EMA, OwnData, TrialConfig
from hpo.results import retrain, test_evaluation
from hpo.results.intervals import Interval
from hpo.results.promise import Promise
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


def with_test_rows(folder: Path, *, noise: float) -> TrialConfig:
    """A config of digits whose test rows come with the data; the sevens and eights among them are harder to read."""
    digits = load_digits()
    x, y = digits.images[:, None].astype(np.float32), digits.target.astype(np.int64)
    hard = np.isin(y[1200:], (7, 8))[:, None, None, None]
    test_x = x[1200:] + hard * np.random.default_rng(0).normal(0, noise, x[1200:].shape).astype(np.float32)
    path = folder / f"digits-{noise}.npz"
    np.savez(path, x=x[:1200], y=y[:1200], x_test=test_x, y_test=y[1200:])
    return dataclasses.replace(MLP_CONFIG, data=OwnData(npz=str(path)))


def test_test_rows_that_are_harder_are_told_from_a_bad_network(tmp_path: Path) -> None:
    metrics = {}
    for noise in (0.0, 20.0):
        config = with_test_rows(tmp_path, noise=noise)
        run = retrain.retrain(config, retrain.load_data(config, None), CPU, tmp_path)
        _, metrics[noise] = test_evaluation.evaluate_on_test([run], Promise(0.94, Interval(0.9, 0.98)))
    assert metrics[0.0]["as_promised"] and "test_rows_differ" not in metrics[0.0]
    differ = metrics[20.0]["test_rows_differ"]
    assert differ["difference"] == pytest.approx(metrics[20.0]["test_accuracy"] - 0.94) and differ["difference"] < 0
    assert differ["classes"] == ["7", "8"]
    assert differ["interval"][0] < differ["difference"] < differ["interval"][1] < 0
    console = Console(file=io.StringIO(), width=200)
    print_test_scores(console, metrics[20.0])
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "OUTSIDE the promised interval 0.9000 to 0.9800" in said
    assert "came with the data and are harder than those of training, by 0." in said and "above all 7, 8" in said


def test_the_mean_of_several_seeds_tells_what_one_does_not(tmp_path: Path) -> None:
    config = with_test_rows(tmp_path, noise=5.0)
    parts = retrain.load_data(config, None)
    runs = [
        retrain.retrain(dataclasses.replace(config, seed=seed), parts, CPU, tmp_path / str(seed)) for seed in (1, 2)
    ]
    alone = test_evaluation.evaluate_on_test(runs, None)[1]["seeds"]["mean_test_score"]
    wide, narrow = Interval(alone - 0.01, alone + 0.09), Interval(alone + 0.03, alone + 0.05)
    promise = Promise(alone + 0.04, wide, narrow)  # of the mean of two: from 0.0039 above
    _, one = test_evaluation.evaluate_on_test([min(runs, key=lambda r: -r.run.final.score("accuracy"))], promise)
    _, mean = test_evaluation.evaluate_on_test(runs, promise)
    assert one["as_promised"] and "test_rows_differ" not in one
    assert not mean["seeds"]["mean_as_promised"]
    low, high = mean["seeds"]["promised_mean_test_score"]
    assert (low, high) == pytest.approx((alone + 0.04 - 0.0013**0.5, alone + 0.04 + 0.0013**0.5))
    assert mean["test_rows_differ"]["difference"] == pytest.approx(-0.04)
    console = Console(file=io.StringIO(), width=200)
    print_test_scores(console, mean)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"their mean is OUTSIDE the interval promised for it, {low:.4f} to {high:.4f}" in said
    assert "are harder than those of training, by 0.0400" in said


def test_test_rows_that_hpo_cut_are_like_those_of_training(tmp_path: Path) -> None:
    config = with_test_rows(tmp_path, noise=0.0)
    assert not data.info(config.data).test_like_training and not data.info("fashion_mnist").test_like_training
    arrays = np.load(config.data.npz)  # type: ignore[union-attr, arg-type]
    np.savez(tmp_path / "cut.npz", x=arrays["x"], y=arrays["y"])
    assert data.info(OwnData(npz=str(tmp_path / "cut.npz"))).test_like_training
    assert data.info("digits").test_like_training
    kept, _ = trained(MLP_CONFIG, tmp_path)
    _, metrics = test_evaluation.evaluate_on_test([kept], Promise(0.999, Interval(0.999, 1.0)))
    assert not metrics["as_promised"] and "test_rows_differ" not in metrics
