"""The library under the command line: values in, values out, nothing printed, nothing half-written."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from hpo import service
from hpo.artifacts import dashboard_folder, study_files
from hpo.errors import DataError, DocumentError, HpoError, StudyError, UsageError, suggestion
from hpo.recipe import load_recipe
from hpo.service.create import OpenedStudy, StudyRequest, open_existing, open_study
from hpo.service.search import run_workers
from hpo.space import SearchSpace, load_space
from hpo.store import studies
from hpo.store.record import State
from hpo.training.simulated import SimulatedEngine
from tests.helpers.studies import SPACE, small_space, trials_of, work


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Path]:
    """Work in an empty folder, and see afterwards that nothing was printed."""
    monkeypatch.chdir(tmp_path)
    for name in ("HPO_STORAGE", "HPO_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    assert capfd.readouterr() == ("", "")


def opened(name: str = "s", trials: int = 3) -> OpenedStudy:
    """Open a study of the small space whose trials have been simulated."""
    study = open_study(StudyRequest(space=SPACE, study=name, limits={"trials": trials}))
    if study.created:
        work(study.store, study.study, SimulatedEngine(), Path("work"))
    return study


# Opening a study


@pytest.mark.parametrize(
    "space",
    ["ann_digits", Path("mine.toml"), SPACE, small_space()],
    ids=["name", "path", "content", "space"],
)
def test_a_space_can_be_given_in_four_forms(space: str | Path | dict[str, object] | SearchSpace, folder: Path) -> None:
    (folder / "mine.toml").write_text(service.spaces.show_document("space", "ann_digits").text)
    first = open_study(StudyRequest(space=space, study="s", overrides={"seed": 3}, limits={"trials": 4}))
    assert (first.created, first.store_created) == (True, True)
    assert (first.study.recipe.seed, first.budget.trials, first.study.space.data) == (3, 4, "digits")
    again = open_study(StudyRequest(space=space, study="s", limits={"trials": 9}))
    assert (again.created, again.store_created, again.budget.trials) == (False, False, 9)
    assert again.study == first.study
    assert open_existing("s").budget.trials == 9


def test_a_studys_name_is_the_spaces(folder: Path) -> None:
    (folder / "mine.toml").write_text(service.spaces.show_document("space", "ann_digits").text)
    assert open_study(StudyRequest(space="mine.toml")).study.name == "mine"
    assert open_study(StudyRequest(space="ann_digits")).study.name == "ann_digits"


def test_overrides_change_only_the_fields_that_they_have() -> None:
    request = StudyRequest(space="ann_digits", overrides={"sampler": {"name": "random"}})
    study = open_study(request).study
    default = load_recipe("default")
    assert study.recipe.sampler == default.sampler.model_copy(update={"name": "random"})
    assert not open_study(request).created
    with pytest.raises(StudyError, match=r'recipe.sampler.name: "random" in the study, "qmc" now'):
        open_study(dataclasses.replace(request, overrides={"sampler": {"name": "qmc"}}))
    # How trials are run is not what the study is.
    assert not open_study(dataclasses.replace(request, overrides={"engine": "solo"})).created


REFUSED = [
    (StudyRequest(), UsageError, "study: a space or a study is required, got neither."),
    (StudyRequest(space=SPACE), UsageError, "study: a name is required with a space that has none"),
    (StudyRequest(space=SPACE | {"epochs": "6"}, study="s"), DocumentError, 'space: epochs: .*got "6"'),
    (StudyRequest(space=SPACE | {"depth": 2}, study="s"), DocumentError, 'space: unknown key "depth"'),
    (StudyRequest(space="none.toml"), UsageError, "none.toml: no such file"),
    (StudyRequest(space=SPACE, study="a/b"), UsageError, "study: must consist of letters"),
    (StudyRequest(space=SPACE, study="s", overrides={"sed": 1}), DocumentError, 'recipe: unknown key "sed"'),
    (StudyRequest(space=SPACE, study="s", limits={"trials": 0}), DocumentError, "budget: trials: must be >= 1, got 0"),
    (StudyRequest(space=SPACE, study="s", data="mnits"), UsageError, 'No data set named "mnits"'),
    (StudyRequest(space=SPACE, study="s", recipe={"sampler": {"name": "x"}}), DocumentError, "recipe: sampler.name: "),
    (StudyRequest(study="s"), StudyError, 'No study named "s"'),
    (StudyRequest(study="s", storage="s.db"), UsageError, 'storage: must be a URL, got "s.db"'),
]


@pytest.mark.parametrize(("request_", "kind", "text"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_a_wrong_request_is_one_line_and_makes_nothing(
    request_: StudyRequest, kind: type[HpoError], text: str, folder: Path
) -> None:
    with pytest.raises(kind, match=text) as caught:
        open_study(request_)
    assert len(str(caught.value).splitlines()) == 1
    assert list(folder.iterdir()) == []


def test_a_study_in_use_with_something_else_is_refused_and_kept() -> None:
    first = opened()
    for changed in (
        StudyRequest(space=SPACE | {"epochs": 7}, study="s", limits={"trials": 50}),
        StudyRequest(study="s", data="wine", limits={"trials": 50}),
        StudyRequest(study="s", overrides={"seed": 9}, limits={"trials": 50}),
    ):
        with pytest.raises(StudyError, match='Study "s" was made of something else'):
            open_study(changed)
    assert open_existing("s").budget == first.budget


def test_data_of_ones_own_is_described_and_counted(folder: Path) -> None:
    rows = "".join(f"{i},{i % 7},{'yes' if i % 8 == 0 else 'no'}\n" for i in range(200))
    (folder / "t.csv").write_text("a,b,churn\n" + rows)
    own = service.data.own_data("t.csv", "churn")
    assert own.csv == str(folder / "t.csv") and own.target == "churn"
    made = open_study(StudyRequest(space="ann_tabular", data=own))
    assert made.class_counts is not None and made.class_counts.imbalanced
    assert made.class_counts.counts["no"] > 100 and made.class_counts.total == sum(made.class_counts.counts.values())
    for path, label, text in (
        ("none.csv", "churn", "data: none.csv: no such file or folder"),
        ("t.csv", None, "label: is required with t.csv"),
    ):
        with pytest.raises(UsageError, match=text):
            service.data.own_data(path, label)
    with pytest.raises(DataError, match='no column named "x"'):
        open_study(StudyRequest(space="ann_tabular", study="x", data=service.data.own_data("t.csv", "x")))


# Running workers


class Recorder:
    """An observer that keeps what it is given."""

    def __init__(self, on_update: Callable[[], None] = lambda: None) -> None:
        self.lines: list[str] = []
        self.entered = self.left = self.updates = 0
        self.on_update = on_update

    def __enter__(self) -> Self:
        self.entered += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.left += 1

    def update(self) -> None:
        self.updates += 1
        self.on_update()

    def say(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(f"warning: {text}")


def states(study: OpenedStudy) -> list[str]:
    return [trial.state.name for trial in trials_of(study.store, study.study)]


@pytest.mark.slow
def test_workers_run_a_study_to_its_end_and_an_observer_sees_it() -> None:
    study = open_study(StudyRequest(space="ann_digits", limits={"trials": 2}))
    recorder = Recorder()
    outcome = run_workers(study.store, study.study, devices=["cpu"], engine="solo", observer=recorder)
    assert (outcome.failure, outcome.stopped) == ("", False)
    assert recorder.lines == ['study "ann_digits": 0 of 2 trials done']
    assert (recorder.entered, recorder.left) == (1, 1) and recorder.updates > 1
    progress = service.progress.read_progress(study.store, study.study)
    assert progress.study.finished == 2 and progress.best is not None and progress.study.over is not None
    assert "all 2 trials are finished" in service.next_steps.next_commands(study.store, progress.study)
    assert "hpo confirm" in service.next_steps.next_commands(study.store, progress.study)
    failed = dataclasses.replace(progress.study, best_value=None, counts=progress.study.counts | {State.FAIL: 2})
    assert "To see why no trial was completed:" in service.next_steps.next_commands(study.store, failed)
    assert "hpo confirm" not in service.next_steps.next_commands(study.store, failed)
    silent = run_workers(study.store, study.study, devices=["cpu"], observer=recorder)
    assert silent == outcome and recorder.entered == 1, "what is over needs no workers"


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_hands_the_trials_back(times: int) -> None:
    """As in a notebook: KeyboardInterrupt in the calling thread, no handler of signals."""
    study = open_study(StudyRequest(space="ann_digits", limits={"trials": 1000}))
    interrupts = iter([True] * times)

    def interrupt() -> None:
        if "RUNNING" in states(study) and next(interrupts, False):
            raise KeyboardInterrupt

    outcome = run_workers(study.store, study.study, devices=["cpu", "cpu"], observer=Recorder(interrupt))
    assert outcome.stopped and not outcome.failure
    assert "RUNNING" not in states(study) and "FAIL" not in states(study)


def test_a_broken_observer_leaves_no_worker_behind() -> None:
    study = open_study(StudyRequest(space="ann_digits", limits={"trials": 1000}))

    def fail() -> None:
        if "RUNNING" in states(study):
            raise RuntimeError("no display")

    with pytest.raises(RuntimeError, match="no display"):
        run_workers(study.store, study.study, devices=["cpu"], observer=Recorder(fail))
    with study.store.read() as connection:
        assert service.studies.list_studies(study.store)[0].workers == (), connection
    assert "RUNNING" not in states(study)


@pytest.mark.slow
def test_workers_run_from_any_thread_and_signals_are_the_callers() -> None:
    study = open_study(StudyRequest(space="ann_digits", limits={"trials": 1}))
    before, outcomes = signal.getsignal(signal.SIGINT), []
    thread = threading.Thread(target=lambda: outcomes.append(run_workers(study.store, study.study, devices=["cpu"])))
    thread.start()
    thread.join(120)
    assert outcomes and not outcomes[0].failure and signal.getsignal(signal.SIGINT) is before
    with service.search.stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 5
        while not stop.count and time.monotonic() < deadline:
            time.sleep(0.01)
    assert stop.count == 1 and signal.getsignal(signal.SIGINT) is before


def test_a_failure_is_named() -> None:
    study = open_study(StudyRequest(space="ann_digits", limits={"trials": 1}))
    outcome = run_workers(study.store, study.study, devices=["cuda:99"])
    assert 'No device named "cuda:99"' in outcome.failure
    with pytest.raises(StudyError, match='Study "ann_digits" stopped: No device named'):
        outcome.raise_for_failure()
    with pytest.raises(UsageError, match='engine: must be auto, packed or solo, got "fast"'):
        run_workers(study.store, study.study, devices=["cpu"], engine="fast")


# What becomes of a study


@pytest.mark.slow
def test_a_winner_is_confirmed_exported_trained_and_used(folder: Path) -> None:
    quick = {"epochs": 4, "engine": "solo"}
    study = open_study(StudyRequest(space="ann_digits", overrides=quick, limits={"trials": 2}))
    run_workers(study.store, study.study, devices=["cpu"])
    with pytest.raises(StudyError, match="has no confirmation"):
        service.confirm.run_confirmation(study.store, study.study, devices=["cpu"])
    assert service.confirm.read_confirmation(study.store, study.study) is None
    confirmed = service.confirm.confirm_study(study.store, study.study, devices=["cpu"], top=1, seeds=2)
    confirmed.raise_for_failure()
    assert confirmed.result is not None and len(confirmed.result.winner.values) == 2
    chosen = service.export.choose_winner(study.store, study.study)
    assert chosen.provenance["confirmed"] is True
    written = service.export.write_export(chosen, "best.json", format="json")
    assert written.path.read_text() == service.export.export_text(chosen, format="json")
    assert "import torch" in service.export.export_text(chosen, kind="script")
    updates: list[service.train.EpochUpdate] = []
    request = service.train.TrainRequest(source=chosen, output="model", epochs=2, seeds=2, device="cpu")
    trained = service.train.train_model(request, on_epoch=updates.append)
    assert [(u.training, u.epoch) for u in updates] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert trained.metrics["test_rows"] == 360 and (folder / "model" / "metrics.json").exists()
    assert service.train.plan_training(dataclasses.replace(request, source="best.json")).config.epochs == 2
    (folder / "x.csv").write_text(",".join(f"p{i}" for i in range(64)) + "\n" + ",".join(["3"] * 64) + "\n")
    [prediction] = service.predict.predict_files("model", ["x.csv"])
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-4)
    report = service.report.write_report(study.store, study.study)
    assert report.path.stat().st_size >= report.size > 1_000_000


def test_what_cannot_be_written_leaves_nothing(folder: Path) -> None:
    study = opened()
    chosen = service.export.choose_winner(study.store, study.study)
    (folder / "taken").write_text("a file, not a folder")
    before = sorted(folder.rglob("*"))
    for write in (
        lambda: service.export.write_export(chosen, "taken/best.toml"),
        lambda: service.report.write_report(study.store, study.study, "taken/report.html"),
    ):
        with pytest.raises(HpoError, match="cannot be written"):
            write()
    for bad in (
        lambda: service.export.export_text(chosen, format="xml"),
        lambda: service.export.export_text(chosen, kind="picture"),
        lambda: service.train.plan_training(service.train.TrainRequest(source=chosen, seeds=0)),
        lambda: service.confirm.check_counts(5, 1),
    ):
        with pytest.raises(UsageError):
            bad()
    assert sorted(folder.rglob("*")) == before


# Studies changed, with their files


def with_files(study: OpenedStudy) -> tuple[Path, Path]:
    """Give a study a file and a picture of the dashboard; return both."""
    uid = study.study.uid
    study_files(study.store.url, uid).write("checkpoints/0.safetensors", b"weights")
    pictures = dashboard_folder(study.store.url)
    pictures.mkdir(parents=True, exist_ok=True)
    picture = pictures / f"{uid}-0-curve.png"
    picture.write_bytes(b"picture")
    return Path("runs/artifacts") / uid / "checkpoints" / "0.safetensors", picture


def test_deleting_a_study_deletes_its_files_and_no_others() -> None:
    study, other = opened("s"), opened("other")
    gone, kept = with_files(study), with_files(other)
    assert all(path.exists() for path in (*gone, *kept))
    deleted = service.admin.delete_study(study.store, "s")
    assert (deleted.name, deleted.trials, deleted.files_left) == ("s", 3, None)
    assert not any(path.exists() for path in gone) and all(path.exists() for path in kept)
    assert not gone[0].parents[1].exists()
    with pytest.raises(StudyError, match='No study named "s"'):
        service.admin.delete_study(study.store, "s")


def test_files_in_s3_are_named_not_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    study = opened("s")
    monkeypatch.setenv("HPO_ARTIFACTS", "s3://bucket/prefix")
    deleted = service.admin.delete_study(study.store, "s")
    assert deleted.files_left == f"s3://bucket/prefix/{study.study.uid}/"


def test_copying_a_study_copies_its_files() -> None:
    study = opened("s")
    file, picture = with_files(study)
    copied = service.admin.copy_study(study.store, "s", new_name="t")
    assert (copied.name, copied.copy, copied.files_left) == ("s", "t", None)
    other = open_existing("t")
    assert (Path("runs/artifacts") / other.study.uid / "checkpoints" / file.name).read_bytes() == b"weights"
    target = service.stores.open_store("sqlite:///elsewhere/studies.db", create=True)
    copied = service.admin.copy_study(study.store, "s", target=target)
    uid = studies.load_study(target, "s").uid
    assert copied.store == "sqlite:///elsewhere/studies.db"
    assert (Path("elsewhere/artifacts") / uid / "checkpoints" / file.name).read_bytes() == b"weights"
    assert (Path("elsewhere/artifacts/dashboard") / picture.name).read_bytes() == b"picture"
    with pytest.raises(UsageError, match="another store or another name is required"):
        service.admin.copy_study(study.store, "s")
    with pytest.raises(StudyError, match='there is a study "t" already'):
        service.admin.copy_study(study.store, "s", new_name="t")


def test_a_copy_whose_files_cannot_be_copied_is_no_copy(folder: Path) -> None:
    study = opened("s")
    with_files(study)
    target = service.stores.open_store("sqlite:///elsewhere/studies.db", create=True)
    (folder / "elsewhere" / "artifacts").write_text("a file where a folder is needed")
    with pytest.raises(HpoError, match=r"the study's files cannot be copied: .*Nothing was copied"):
        service.admin.copy_study(study.store, "s", target=target)
    assert service.studies.list_studies(target) == ()


def test_a_study_is_renamed_shown_and_its_trials_voided_and_retried() -> None:
    study = opened("s")
    with_files(study)
    service.admin.rename_study(study.store, "s", "t")
    assert service.names.study_names() == ["t"] and open_existing("t").study.uid == study.study.uid
    summary = service.studies.show_study(study.store, "t", top=2)
    assert len(summary.best) == 2 and len(summary.leaderboard.best) == 2 and summary.failures == {}
    service.admin.void_trial(study.store, "t", 0, why="a test")
    assert service.studies.show_trial(study.store, "t", 0).trial.state == "FAIL"
    assert service.admin.retry_trials(study.store, "t") == ()
    with pytest.raises(StudyError, match='Study "t" has no trial 99'):
        service.studies.show_trial(study.store, "t", 99)


def test_a_study_is_given_another_space(folder: Path) -> None:
    study = opened("s", trials=8)
    text = service.spaces.show_document("space", "ann_digits").text
    (folder / "other.toml").write_text(text.replace('"digits"', '"wine"'))
    with pytest.raises(StudyError, match="cannot be mapped to the new space"):
        service.admin.set_space(study.store, "s", "other.toml")
    wide = "epochs = 6\nbatch_size = { choices = [32, 64] }\n"
    network = "[mlp]\ndepth = { low = 1, high = 3 }\nwidth = { low = 8, high = 64, step = 8 }\n"
    optimizer = '[optimizer]\nname = { choices = ["sgd", "adam"] }\nlr = { low = 1e-5, high = 1e-1, log = true }\n'
    (folder / "wide.toml").write_text(f'data = "digits"\n{wide}{network}{optimizer}')
    result = service.admin.set_space(study.store, "s", "wide.toml")
    assert len(result.kept) == 8 and not result.hidden
    assert open_existing("s").study.space == load_space("wide.toml")


def test_documents_and_data_are_listed_checked_and_copied(folder: Path) -> None:
    assert "ann_fashion" in service.names.document_names("space")
    assert {row.name for row in service.spaces.list_documents("recipe")} == {"default", "gp", "smoke"}
    checked = service.spaces.check_space("ann_digits")
    assert checked.example and checked.grid_size is None and checked.no_grid
    assert service.spaces.copy_space("mine", "ann_digits") == Path("search_spaces/mine.toml")
    assert service.spaces.compare_spaces("mine", "ann_digits") == []
    with pytest.raises(UsageError, match="exists already"):
        service.spaces.copy_space("mine", "ann_digits")
    assert {row.info.name: row.state for row in service.data.list_data()}["digits"] == "ready"
    assert service.data.fetch_data("digits").source == "scikit-learn"


def test_a_store_is_made_once() -> None:
    assert service.stores.create_store().created and not service.stores.create_store().created


# Imports


def test_the_service_is_imported_without_any_heavy_library() -> None:
    code = (
        "import sys; from hpo import service; print([m for m in ('torch', 'optuna', 'sqlalchemy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'unknown'"):
        service.unknown  # noqa: B018


def test_every_module_of_the_service_can_be_used() -> None:
    files = Path(service.__file__).parent.glob("[a-z]*.py")
    assert {path.stem for path in files} == {*service.__all__, "network_checks"}
    for name in service.__all__:
        assert getattr(service, name).__name__ == f"hpo.service.{name}"


def test_a_long_list_of_names_is_cut_in_an_error() -> None:
    text = suggestion("study-7x", [f"study-{i:02}" for i in range(40)])
    assert text.startswith("Did you mean study-") and text.endswith("study-11 and 28 more.")
