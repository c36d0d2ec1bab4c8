"""The Python API: the same store, workers and guarantees as the command line, as objects."""

import contextlib
import inspect
import json
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

import hpo
from hpo import errors
from hpo.config import TrialConfig
from hpo.store.record import State
from tests.helpers.command import Process
from tests.helpers.command import hpo as command

SMALL: dict[str, Any] = {"epochs": 2, "pruner": {"name": "none"}}
"""A recipe whose trials take a fraction of a second on digits."""
QUICK: dict[str, Any] = {"recipe": SMALL, "workers": 0, "engine": "solo", "progress": False}
HERE: dict[str, Any] = {"workers": 0, "engine": "solo", "progress": False}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HPO_STORAGE", "HPO_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def wines() -> pd.DataFrame:
    from sklearn.datasets import load_wine

    frame: pd.DataFrame = load_wine(as_frame=True).frame.rename(columns={"target": "grower"})
    frame["closure"] = np.where(frame["proline"] > 700, "cork", "screw cap")
    frame.loc[frame.index[::9], "ash"] = np.nan
    return frame


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study of eight finished trials, made once."""
    folder = tmp_path_factory.mktemp("finished")
    with contextlib.chdir(folder):
        hpo.search("ann_digits", trials=8, **QUICK)
    return folder / "runs"


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> hpo.Study:
    """A study of eight finished trials, in a store of its own."""
    shutil.copytree(finished, tmp_path / "runs")
    return hpo.open("ann_digits")


def test_a_search_ends_with_its_budget_and_is_resumed_by_name(study: hpo.Study) -> None:
    assert study.status.finished == 8 and len(study.trials) == 8
    before = list(study.trials["value"])
    again = hpo.search("ann_digits", trials=9, **QUICK)
    assert again.status.finished == 9 and list(again.trials["value"][:8]) == before
    assert study.run(trials=10, **HERE) is study and study.status.finished == 10


@pytest.mark.slow
def test_worker_processes_train_the_same_study() -> None:
    study = hpo.search("ann_digits", trials=3, recipe=SMALL, workers=2, progress=False)
    assert study.status.finished == 3 and not study.status.workers


def test_the_best_trial_and_the_table_of_all(study: hpo.Study) -> None:
    best = study.best
    assert isinstance(best, hpo.Trial) and isinstance(best.config, TrialConfig)
    table = study.trials
    assert best.value == table["value"].max() and best.curve[2] == best.value
    assert list(table["number"]) == list(range(8)) and set(table["state"]) == {"COMPLETE"}
    assert table["optimizer.lr"].notna().all()


@pytest.mark.slow
def test_the_command_line_and_optuna_see_the_same_study(study: hpo.Study, tmp_path: Path) -> None:
    shown = command("studies", "show", "ann_digits", "--json", folder=tmp_path)
    assert json.loads(shown.stdout)["best_value"] == study.best.value
    assert study.to_optuna().best_value == study.best.value
    assert list(hpo.studies()["study"]) == ["ann_digits"]


def test_an_opened_study_is_unchanged(study: hpo.Study) -> None:
    opened = hpo.open("ann_digits")
    assert opened.best.number == study.best.number and opened.status.finished == 8
    with pytest.raises(errors.StudyError, match="Did you mean ann_digits"):
        hpo.open("ann_digit")


@pytest.mark.slow
def test_confirmed_exported_trained_and_used(study: hpo.Study, tmp_path: Path) -> None:
    assert study.confirmation is None
    confirmation = study.confirm(top=1, seeds=2, **HERE)
    assert len(confirmation.table) == 2 and confirmation.winner in set(confirmation.table["trial"])
    assert study.confirmation is not None and study.confirmation.verdict == confirmation.verdict
    config = study.export("best.toml")
    assert config == confirmation.config and "[config]" in Path("best.toml").read_text()
    study.export("best.py")
    compile(Path("best.py").read_text(), "best.py", "exec")
    model = study.train("model", progress=False)
    assert 0.5 < model.metrics["test_accuracy"] <= 1
    from sklearn.datasets import load_digits

    images = load_digits().images[:20]
    shares = model.predict_proba(images)
    assert shares.shape == (20, 10) and shares.sum(1) == pytest.approx(np.ones(20))
    assert list(model.predict(images)) == [model.classes[i] for i in shares.argmax(1)]
    assert (hpo.load("model").predict_proba(images) == shares).all()


def test_nothing_is_printed_and_progress_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    hpo.search("ann_digits", trials=1, **QUICK)
    silent = capfd.readouterr()
    assert silent.out == "" and silent.err == ""
    hpo.open("ann_digits").run(trials=2, workers=0)
    shown = capfd.readouterr()
    assert shown.out == "" and "ann_digits" in shown.err and "2/2" in shown.err


def test_figures_are_plotly_figures(study: hpo.Study) -> None:
    for figure in (study.plot_history(), study.plot_curves(), study.plot_importances(), study.plot_parallel()):
        assert isinstance(figure, go.Figure) and figure.data
    with pytest.raises(errors.StudyError, match="two objectives"):
        study.plot_pareto()


def test_two_objectives_have_a_front() -> None:
    study = hpo.search("ann_digits", trials=4, recipe=SMALL, objective=("accuracy", "parameters"), **HERE)
    costs = [trial.cost or 0.0 for trial in study.front]
    assert costs == sorted(costs, reverse=True) and "cost" in study.trials
    assert study.plot_pareto().data


def test_a_notebook_shows_table_picture_and_verdict(study: hpo.Study) -> None:
    page = study._repr_html_()
    assert "8 of" in page and "<table" in page and "data:image/svg+xml" in page and "Not confirmed" in page
    confirmation = study.confirm(top=1, seeds=2, **HERE)
    assert confirmation.verdict in study._repr_html_() and "<table" in confirmation._repr_html_()
    assert "<script" not in page


def test_texts_from_a_store_are_escaped_in_a_notebook() -> None:
    space = hpo.SearchSpace.model_validate(_space() | {"title": "<script>alert(1)</script>"})
    study = hpo.search(space, study="escaped", trials=1, **QUICK)
    assert "<script>" not in study._repr_html_()


def _space() -> dict[str, Any]:
    return {
        "data": "digits",
        "epochs": 3,
        "batch_size": 64,
        "mlp": {"depth": 1, "width": {"low": 8, "high": 32, "step": 8}},
        "optimizer": {"name": "adam", "lr": {"low": 1e-3, "high": 1e-2, "log": True}},
    }


@pytest.mark.slow
def test_a_space_may_be_a_dict_or_an_object_or_a_path() -> None:
    study = hpo.search(_space(), study="by_dict", trials=1, **HERE)
    assert study.status.finished == 1
    with pytest.raises(errors.UsageError, match="study"):
        hpo.search(_space(), trials=1)
    with pytest.raises(errors.DocumentError, match=r"space: batch_size: must be .*got \"many\""):
        hpo.search(_space() | {"batch_size": "many"}, study="broken")
    Path("mine.toml").write_text(
        'data = "digits"\nepochs = 2\nbatch_size = 64\n[mlp]\ndepth = 1\nwidth = 16\n'
        '[optimizer]\nname = "adam"\nlr = 1e-3\n'
    )
    by_path = hpo.search(Path("mine.toml"), trials=1, recipe={"duplicates": "new_seed"}, **HERE)
    assert by_path.name == "mine"


@pytest.mark.slow
def test_a_table_with_texts_and_gaps(wines: pd.DataFrame) -> None:
    study = hpo.search("ann_tabular", data=wines, label="grower", trials=2, **QUICK)
    [file] = Path("runs/artifacts/data").iterdir()
    assert file.suffix == ".parquet"
    again = hpo.search("ann_tabular", data=wines, label="grower", trials=3, **QUICK)
    assert again.status.finished == 3 and len(list(Path("runs/artifacts/data").iterdir())) == 1
    model = study.train(progress=False)
    rows = wines.drop(columns="grower").tail(5)
    assert set(model.predict(rows)) <= {"0", "1", "2"}
    changed = wines.assign(ash=wines["ash"].fillna(0))
    with pytest.raises(errors.StudyError, match="was made of something else"):
        hpo.search("ann_tabular", data=changed, label="grower", trials=3, **QUICK)


@pytest.mark.slow
def test_arrays_with_any_labels_and_images_of_both_layouts() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(60, 8, 10, 3), dtype=np.uint8)
    images[::2, :4] = 0
    labels = np.where(np.arange(60) % 2, "bright", "dark")
    options: dict[str, Any] = {
        "trials": 1,
        "recipe": {"epochs": 1, "pruner": {"name": "none"}},
        "workers": 0,
        "progress": False,
    }
    space = _space() | {"batch_size": 16, "epochs": 1}
    del space["data"]
    study = hpo.search(space, study="pictures", data=(images, labels), **options)
    model = study.train(progress=False)
    assert model.classes == ("bright", "dark")
    first = model.predict_proba(images[:4])
    assert first == pytest.approx(model.predict_proba(images[:4].transpose(0, 3, 1, 2)))
    gaps = hpo.search(space, study="gaps", data=(rng.normal(size=(40, 5)), np.tile([1, 5], 20)), **options)
    assert gaps.train(progress=False).classes == ("1", "5")


def test_a_torch_data_set() -> None:
    import torch
    from torch.utils.data import TensorDataset

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=generator)
    study = hpo.search(
        "ann_tabular",
        study="torch",
        data=TensorDataset(x, (x[:, 0] > 0).long()),
        trials=1,
        recipe=SMALL,
        workers=0,
        progress=False,
    )
    assert study.best.value is not None


@pytest.mark.parametrize(
    ("data", "label", "message"),
    [
        ((np.zeros((4, 2)), np.zeros(3)), None, "same length, got 4 rows and 3 labels"),
        ((np.zeros((4, 2)), np.array([0, 1, np.nan, 1])), None, "must not be missing, got 1 missing"),
        ((np.zeros((4, 2)), np.array([0.5, 1, 1.5, 1])), None, "must be classes, got the continuous number 0.5"),
        ((np.zeros((4, 2)), np.zeros(4)), None, "at least two classes"),
        ((np.full((4, 2), np.nan), np.array([0, 1, 0, 1])), None, "finite numbers"),
        ((np.zeros((0, 2)), np.zeros(0)), None, "must have rows"),
        (pd.DataFrame({"a": [1, 2], "b": [0, 1]}), "c", 'no column named "c"'),
        (pd.DataFrame({"a": [1, 2], "b": [0, 1]}), None, "needs the name of the column"),
        (pd.DataFrame({"a": [1, 2], "b": [0, None]}), "b", "must not be missing"),
        (3, None, "must be a DataFrame, a pair"),
    ],
)
def test_bad_data_is_one_line_and_nothing_is_left(
    data: object, label: str | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(errors.InputError, match=message) as caught:
        hpo.search("ann_tabular", data=data, label=label, trials=1, **HERE)
    assert "\n" not in str(caught.value) and isinstance(caught.value, ValueError)
    assert list(tmp_path.iterdir()) == []


def test_requests_that_cannot_be_met(study: hpo.Study) -> None:
    with pytest.raises(errors.UsageError, match="a space or a study is required"):
        hpo.search()
    with pytest.raises(errors.UsageError, match="test_fraction: must be at least 0 and below 1, got 1"):
        hpo.search("ann_tabular", data=(np.zeros((4, 2)), [0, 1, 0, 1]), test_fraction=1, study="all_test")
    with pytest.raises(errors.HpoError, match="trials: must be >= 1, got 0"):
        hpo.search("ann_digits", study="empty", trials=0)
    with pytest.raises(errors.StudyError, match="was made of something else"):
        hpo.search("ann_breast_cancer", study="ann_digits", trials=3)
    with pytest.raises(errors.UsageError, match="workers: must be at least 0"):
        study.run(workers=-1)
    assert list(hpo.studies()["study"]) == ["ann_digits"]


@pytest.mark.slow
def test_what_needs_a_finished_trial_says_so(tmp_path: Path) -> None:
    command("init", "--space", "ann_digits", folder=tmp_path)
    study = hpo.open("ann_digits")
    for action in (study.confirm, study.export, study.train, lambda: study.best):
        with pytest.raises(errors.StudyError, match="no complete trial"):
            action()
    assert "no trial complete" in repr(study)


@pytest.mark.slow
def test_an_interrupt_releases_the_trials(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import hpo
        recipe = {"epochs": 2, "pruner": {"name": "none"}}
        try:
            hpo.search("ann_digits", trials=2000, recipe=recipe, workers=1, engine="solo", progress=False)
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    (tmp_path / "search.py").write_text(code)
    process = Process("search.py", module="tests.helpers.script", folder=tmp_path)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if (tmp_path / "runs/studies.db").exists():
            try:
                if hpo.open("ann_digits").status.finished >= 2:
                    break
            except errors.HpoError:
                continue
    process.send_signal(signal.SIGINT)
    process.wait(60)
    assert process.stdout == "interrupted\n"
    status = hpo.open("ann_digits").status
    assert status.counts[State.RUNNING] == 0 and not status.workers and 2 <= status.finished < 2000


def test_a_study_is_renamed_copied_deleted_with_its_files(study: hpo.Study) -> None:
    study.rename("renamed")
    assert hpo.open("renamed").name == study.name == "renamed"
    copy = study.copy("copied")
    assert copy.trials["value"].tolist() == study.trials["value"].tolist()
    study.delete()
    assert list(hpo.studies()["study"]) == ["copied"] and copy.status.finished == 8


def test_a_study_survives_pickling(study: hpo.Study) -> None:
    again = pickle.loads(pickle.dumps(study))
    assert again.best.number == study.best.number


def test_public_names_are_documented_and_no_more() -> None:
    assert sorted(hpo.__all__) == hpo.__all__ or set(hpo.__all__) <= set(dir(hpo))
    for name in hpo.__all__:
        value = getattr(hpo, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name
            classes = [c for c in value.__mro__ if c.__module__.startswith("hpo.api")] if inspect.isclass(value) else []
            members = [m for c in classes for n, m in vars(c).items() if not n.startswith("_")]
            for member in members:
                if inspect.isfunction(member) or isinstance(member, property):
                    assert inspect.getdoc(member), f"{name}.{member}"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hpo.nothing  # noqa: B018


def test_importing_hpo_imports_nothing_heavy() -> None:
    heavy = ("torch", "optuna", "pandas", "sqlalchemy", "sklearn")
    code = f"import hpo, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
