"""`SearchClassifier` as a scikit-learn estimator: scikit-learn's own checks, pipelines, folds, clones."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import hpo
from hpo import errors
from hpo.store.record import State

SPACE: dict[str, Any] = {
    "epochs": 20,
    "batch_size": 16,
    "mlp": {"depth": 1, "width": 32, "activation": "relu"},
    "optimizer": {"name": "adamw", "lr": {"low": 0.005, "high": 0.02, "log": True}},
}

EXPECTED_FAILURES: dict[str, str] = {}
"""Checks of scikit-learn that cannot hold, and why."""


def quick(**changes: Any) -> hpo.SearchClassifier:
    options: dict[str, Any] = {"space": SPACE, "trials": 1, "workers": 0, "engine": "solo"}
    return hpo.SearchClassifier(**(options | changes))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HPO_STORAGE", "HPO_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.slow
@parametrize_with_checks([quick()], expected_failed_checks=lambda estimator: EXPECTED_FAILURES)  # type: ignore[untyped-decorator]
def test_scikit_learn_checks(estimator: hpo.SearchClassifier, check: Any) -> None:
    check(estimator)


@pytest.mark.slow
def test_folds_of_a_pipeline_are_scored() -> None:
    x, y = load_wine(return_X_y=True)
    scores = cross_val_score(make_pipeline(StandardScaler(), quick(trials=2)), x, y, cv=3)
    assert scores.mean() > 0.85


@pytest.mark.slow
def test_a_fit_that_has_ended_is_not_searched_again() -> None:
    x, y = load_wine(return_X_y=True)
    first = quick(trials=2).fit(x, y)
    second = clone(first).fit(x, y)
    assert second.study_.name == first.study_.name and len(second.study_.trials) == 2
    assert (second.predict_proba(x) == first.predict_proba(x)).all()
    assert quick(trials=2, random_state=1).fit(x, y).study_.name != first.study_.name
    other = quick(recipe={"epochs": 2, "pruner": {"name": "none"}}).fit(x, y)
    assert other.study_.name not in (first.study_.name, second.study_.name)


def test_an_interrupted_fit_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = load_wine(return_X_y=True)
    join = threading.Thread.join
    interrupts = iter([KeyboardInterrupt])

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        join(thread, timeout)
        if thread.name == "hpo-worker" and (interrupt := next(interrupts, None)):
            raise interrupt

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    classifier = quick(trials=30)
    with pytest.raises(KeyboardInterrupt):
        classifier.fit(x, y)
    [name] = hpo.studies()["study"]
    status = hpo.open(name).status
    assert status.finished < 30 and status.counts[State.RUNNING] == 0
    classifier.set_params(trials=status.finished + 1).fit(x, y)
    assert classifier.study_.name == name and classifier.study_.status.finished == status.finished + 1


def test_tables_with_texts_and_names() -> None:
    frame = load_wine(as_frame=True).frame
    frame["closure"] = np.where(frame["proline"] > 700, "cork", "screw cap")
    frame.loc[::7, "ash"] = np.nan
    names = np.array(["Anna", "Bert", "Carl"])[frame.pop("target")]
    classifier = quick().fit(frame, names)
    assert list(classifier.classes_) == ["Anna", "Bert", "Carl"]
    assert list(classifier.feature_names_in_) == list(frame.columns)
    assert classifier.score(frame, names) > 0.85
    with pytest.raises(ValueError, match="feature names"):
        classifier.predict(frame.rename(columns={"ash": "dust"}))


@pytest.mark.slow
def test_images_of_more_than_ten_classes_keep_their_order() -> None:
    images, digits = load_digits(return_X_y=True)
    images, labels = images.reshape(-1, 8, 8)[:600], digits[:600] + np.where(np.arange(600) % 2, 10, 0)
    space = {**SPACE, "epochs": 30}
    classifier = quick(space=space).fit(images, labels)
    shares = classifier.predict_proba(images)
    assert shares.shape == (600, 20) and list(classifier.classes_) == list(range(20))
    predicted = classifier.predict(images)
    assert (predicted % 10 == labels % 10).mean() > 0.8


@pytest.mark.slow
def test_confirmation_chooses_the_winner() -> None:
    x, y = load_wine(return_X_y=True)
    classifier = quick(trials=2, confirm=2).fit(x, y)
    confirmation = classifier.study_.confirmation
    assert confirmation is not None and classifier.best_config_ == confirmation.config


def test_bad_input_is_one_line() -> None:
    x, y = load_wine(return_X_y=True)
    with pytest.raises(NotFittedError):
        quick().predict(x)
    with pytest.raises(ValueError, match=r"same length|inconsistent"):
        quick().fit(x, y[:-1])
    with pytest.raises(errors.InputError, match="one class"):
        quick().fit(x, np.zeros(len(x)))
    with pytest.raises(ValueError, match="NaN"):
        quick().fit(np.where(x > 100, np.nan, x), y)
    assert not Path("runs").exists()


def test_a_frame_with_a_missing_label_is_refused() -> None:
    frame = pd.DataFrame({"a": np.arange(6.0)})
    with pytest.raises(ValueError, match=r"missing|NaN"):
        quick().fit(frame, np.array([0, 1, None, 1, 0, 1]))
