"""Metrics other than accuracy, and class weights: as scikit-learn defines them, and obeyed everywhere."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss
from sklearn.utils.class_weight import compute_class_weight

from hpo.config import LABELS, MLP, Metric, Split, TrialConfig, format_difference
from hpo.data import info, load_parts
from hpo.results import test_scores
from hpo.training.dataset import ResidentData, balanced_weights, resident
from hpo.training.engine import EpochResult, final
from hpo.training.epoch import Run
from hpo.training.metrics import compute_metrics
from hpo.training.sampling_error import sampling_error
from tests.helpers.training import MLP_RUN

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cancer() -> ResidentData:
    return resident(load_parts(info("breast_cancer"), Split()), MLP_RUN, CPU)


def test_a_difference_is_said_in_points_only_where_values_are_shares() -> None:
    assert format_difference("accuracy", 0.0125) == "+1.25 points"
    assert format_difference("neg_log_loss", -0.25) == "-0.2500"
    assert format_difference(None, 0.5) == "+0.5000"  # of a study that hpo did not make


Sample = tuple[NDArray[np.float32], NDArray[np.int64]]


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Probabilities and labels of 200 rows, 300 times."""
    chance = np.random.default_rng(0)

    def drawn(rows: int) -> Sample:
        labels = chance.choice(3, size=rows, p=[0.5, 0.4, 0.1])
        logits = chance.normal(size=(rows, 3)) + 1.5 * np.eye(3)[labels]
        return softmax(logits, axis=1).astype(np.float32), labels

    return [drawn(200) for _ in range(300)]


@pytest.fixture(scope="module")
def scores(samples: list[Sample]) -> list[dict[str, Any]]:
    """All scores of each sample."""
    return [test_scores.test_scores(*sample, ("a", "b", "c")) for sample in samples]


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1", "neg_log_loss"])
def test_the_error_of_a_score_is_how_far_scores_of_other_rows_lie_apart(
    metric: Metric, samples: list[Sample], scores: list[dict[str, Any]]
) -> None:
    apart = np.std([test_scores.score_of(metric, each) for each in scores], ddof=1)
    errors = [sampling_error(metric, *sample) for sample in samples[:20]]
    assert np.mean(errors) == pytest.approx(apart, rel=0.15)


def test_the_error_of_a_score_stays_a_number() -> None:
    labels = np.array([0, 0, 1, 1])
    certain = np.array([[1.0, 0.0]] * 4, dtype=np.float32)  # a class is never predicted, two rows have probability 0
    for metric in LABELS:
        assert np.isfinite(sampling_error(metric, certain, labels)), metric
    alone = np.zeros(4, dtype=np.int64)  # a class without rows
    assert 0 < sampling_error("balanced_accuracy", certain, alone) < 0.3, "four right rows are no certainty"


@pytest.mark.parametrize("classes", [2, 5])
def test_scores_are_scikit_learns(classes: int) -> None:
    chance = np.random.default_rng(classes)
    y = chance.choice(classes, size=200, p=[0.6] + [0.4 / (classes - 1)] * (classes - 1))
    logits = chance.normal(size=(200, classes))
    logits[:, -1] -= 9  # a class that is never predicted
    found, predicted = compute_metrics(torch.tensor(logits), torch.tensor(y)), logits.argmax(1)
    assert found.accuracy == pytest.approx((predicted == y).mean())
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(y, predicted))
    assert found.macro_f1 == pytest.approx(f1_score(y, predicted, average="macro", zero_division=0.0))
    assert found.loss == pytest.approx(log_loss(y, torch.tensor(logits).softmax(1).numpy()))


def test_balanced_class_weights_are_scikit_learns_and_weigh_the_loss(cancer: ResidentData) -> None:
    labels = cancer.train_y.numpy()
    expected = compute_class_weight("balanced", classes=np.arange(2), y=labels)
    assert balanced_weights(cancer).numpy() == pytest.approx(expected)
    config = dataclasses.replace(
        MLP_RUN,
        data="breast_cancer",
        class_weight="balanced",
        model=MLP((64, 32), (0.0, 0.0)),
    )
    whole, parts = Run(config, cancer, CPU), Run(dataclasses.replace(config, accumulation=3), cancer, CPU)
    rows = torch.arange(32)
    plain = Run(config, cancer, CPU)
    whole.train_step(rows)
    parts.train_step(rows)
    weights = torch.tensor(expected, dtype=torch.float32)
    F.cross_entropy(plain.model(cancer.train_x[rows]), cancer.train_y[rows], weights).backward()  # type: ignore[no-untyped-call]
    for one, other, third in zip(*(r.model.parameters() for r in (whole, parts, plain)), strict=True):
        torch.testing.assert_close(one.grad, third.grad)
        torch.testing.assert_close(other.grad, third.grad)


def epoch(number: int, accuracy: float, balanced: float, loss: float) -> EpochResult:
    return EpochResult(number, accuracy, balanced, balanced, loss, 1.0, 0.0, 1.0)


def test_the_metric_decides_which_weights_are_the_best() -> None:
    history = [epoch(1, 0.9, 0.5, 0.4), epoch(2, 0.8, 0.7, 0.3), epoch(3, 0.7, 0.6, 0.2)]
    best = {
        metric: final(dataclasses.replace(MLP_RUN, best_weights=True, metric=metric), history).epoch
        for metric in ("accuracy", "balanced_accuracy", "macro_f1", "neg_log_loss")
    }
    assert best == {"accuracy": 1, "balanced_accuracy": 2, "macro_f1": 2, "neg_log_loss": 3}
    assert history[0].score("neg_log_loss") == -0.4
    assert dataclasses.replace(history[0], validation_loss=1e9).score("neg_log_loss") == -100.0


def test_patience_waits_for_the_metric(cancer: ResidentData) -> None:
    config: TrialConfig = dataclasses.replace(
        MLP_RUN, data="breast_cancer", metric="neg_log_loss", patience=2, epochs=60, best_weights=True
    )
    run = Run(config, cancer, CPU)
    while not run.finished:
        run.train_epoch()
    losses = [result.validation_loss for result in run.history]
    assert len(losses) < 60 and min(losses) == losses[-3]
    assert run.evaluate(cancer.validation_x, cancer.validation_y).loss == pytest.approx(min(losses), rel=1e-6)
