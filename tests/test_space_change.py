"""A study in progress is given another space: what fits stays, what does not is hidden, nothing is half-written."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa

from hpo.config import TrialConfig
from hpo.errors import StoreError, StudyError
from hpo.optuna_compat import trial_id
from hpo.runner.session import Session
from hpo.space import SearchSpace
from hpo.store import queries, studies
from hpo.store.change_space import change_space
from hpo.store.database import schema, trial_rows
from hpo.store.database.connect import Store
from hpo.store.studies import StudyRecord
from hpo.training.simulated import SimulatedEngine
from tests.helpers.studies import MakeStudy, on_sqlite, small_space, trials_of, work

LR = {"low": 1e-5, "high": 1e-1, "log": True}
MLP = {"depth": {"low": 1, "high": 3}, "width": {"low": 8, "high": 64, "step": 8}}


def finished_study(store: Store, make_study: MakeStudy, folder: Path, **kwargs: Any) -> StudyRecord:
    study = make_study(**({"trials": 16} | kwargs))
    work(store, study, SimulatedEngine(), folder)
    return study


def sampled(store: Store, study: StudyRecord) -> list[optuna.trial.FrozenTrial]:
    """What sampler and pruner see."""
    with Session(store, study, {}) as session:
        return session.cache.visible_trials((optuna.trial.TrialState.COMPLETE,))


def check_walks(space: SearchSpace, found: list[optuna.trial.FrozenTrial]) -> None:
    """Every trial's parameters and distributions are those of a space, and give its config."""
    for trial in found:
        config = TrialConfig.from_dict(trial.user_attrs["config"], "t")
        fixed = optuna.trial.FixedTrial(trial.params)
        assert space.draw(fixed, config.seed) == config
        assert trial.distributions == fixed.distributions


def test_a_wider_space_keeps_every_trial_and_learns_from_it(
    store: Store, make_study: MakeStudy, tmp_path: Path
) -> None:
    study = finished_study(store, make_study, tmp_path)
    before = trials_of(store, study)
    wider = small_space(
        mlp={"depth": {"low": 1, "high": 5}, "width": {"low": 8, "high": 128, "step": 8}},
        optimizer={"name": {"choices": ["sgd", "adam", "adamw"]}, "lr": LR | {"low": 1e-6}},
        batch_size={"choices": [16, 32]},
    )
    result = change_space(store, "s", "wider", wider)
    assert result.kept == list(range(16)) and result.hidden == {} and result.dropped == {}
    study = studies.load_study(store, "s")
    assert study.space == wider and study.space_name == "wider"
    studies.check_same(study, wider, None)
    after = trials_of(store, study)
    check_walks(wider, after)
    for old, new in zip(before, after, strict=True):
        assert (old.value, old.intermediate_values, old.user_attrs) == (
            new.value,
            new.intermediate_values,
            new.user_attrs,
        )
        assert new.params == old.params | {"batch_size": 32}
    space = optuna.search_space.intersection_search_space(sampled(store, study))
    assert {"mlp.depth", "batch_size", "optimizer.lr"} <= space.keys(), "one distribution for old trials and new"
    studies.update_budget(store, study, trials=24)
    work(store, study, SimulatedEngine(), tmp_path)
    check_walks(wider, trials_of(store, study))
    assert len(trials_of(store, study)) == 24


@pytest.mark.slow
def test_a_narrower_space_hides_what_it_cannot_draw(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = finished_study(store, make_study, tmp_path)
    before = trials_of(store, study)
    narrow = small_space(optimizer={"name": "adam", "lr": LR})
    result = change_space(store, "s", "narrow", narrow)
    fitting = {t.number for t in before if t.params["optimizer.name"] == "adam"}
    assert set(result.kept) == fitting and 0 < len(fitting) < 16
    assert set(result.hidden) == set(range(16)) - fitting
    assert set(result.hidden.values()) == {"optimizer.name: is sgd, the space gives adam"} or all(
        why.startswith("optimizer") for why in result.hidden.values()
    )
    study = studies.load_study(store, "s")
    after = trials_of(store, study)
    check_walks(narrow, [t for t in after if t.number in fitting])
    hidden = [t for t in after if t.number not in fitting]
    assert all(t.params == before[t.number].params and "outside" in t.system_attrs for t in hidden)
    assert {t.number for t in sampled(store, study)} == fitting
    with store.read() as connection:
        view = queries.study(connection, study.study_id)
        best = queries.best_trials(connection, study.study_id, 99)
        out = queries.best_trials(connection, study.study_id, 99, outside=True)
    assert view.finished == 16 and view.outside == 16 - len(fitting), "they were paid for"
    assert {t.number for t in best} == fitting and view.best_value == best[0].value
    assert {t.number for t in out} == set(result.hidden) and out[0].outside == result.hidden[out[0].number]
    # and back: nothing was lost
    again = change_space(store, "s", "small", small_space())
    assert again.kept == list(range(16)) and again.hidden == {}
    restored = trials_of(store, study)
    assert [t.params for t in restored] == [t.params for t in before]
    assert [t.distributions for t in restored] == [t.distributions for t in before]
    assert {t.number for t in sampled(store, studies.load_study(store, "s"))} == set(range(16))


@on_sqlite
def test_draws_that_a_config_does_not_tell_stay(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    """A taper of a network with one layer is in no config."""
    mlp = {"depth": 1, "width": {"low": 8, "high": 64, "step": 8}, "taper": {"low": 0.5, "high": 1.0}}
    study = finished_study(store, make_study, tmp_path, space={"mlp": mlp})
    before = trials_of(store, study)
    change_space(store, "s", "x", small_space(mlp=mlp | {"taper": {"low": 0.3, "high": 1.0}}))
    assert [t.params for t in trials_of(store, study)] == [t.params for t in before]


def baseline(name: str, width: int, optimizer: str = "adam") -> dict[str, object]:
    params = {"mlp": {"depth": 1, "width": [width]}, "optimizer": {"name": optimizer, "lr": 0.01}}
    return {"name": name, "params": params}


def test_waiting_trials_that_no_longer_fit_are_dropped_and_named(
    store: Store, make_study: MakeStudy, tmp_path: Path
) -> None:
    baselines = [baseline("small", 8), baseline("large", 64), baseline("plain", 16, "sgd")]
    study = make_study(trials=12, space={"baselines": baselines})
    steps = iter(range(1000))
    work(store, study, SimulatedEngine(), tmp_path, lambda: next(steps) > 2)  # the first is handed back
    narrow = small_space(
        mlp=MLP | {"width": {"low": 16, "high": 64, "step": 8}},
        batch_size={"choices": [32, 64]},
        baselines=[baseline("wide", 48) | {"params": baseline("wide", 48)["params"] | {"batch_size": 64}}],  # type: ignore[operator]
    )
    result = change_space(store, "s", "narrow", narrow)
    assert result.waiting == [1, 2] and result.added == ["wide"]
    [(number, (what, why))] = result.dropped.items()
    assert (number, what) == (0, "baseline small") and why.startswith("mlp.0.width: must lie in 16..64")
    dropped, *waiting = trials_of(store, study)
    assert dropped.state.name == "FAIL" and dropped.user_attrs["excused"].startswith("dropped: it does not fit")
    assert [t.system_attrs["fixed_params"].get("batch_size") for t in waiting] == [32, 32, 64]
    study = studies.load_study(store, "s")
    work(store, study, SimulatedEngine(), tmp_path)
    done = trials_of(store, study)
    assert [t.user_attrs.get("baseline") for t in done[1:4]] == ["large", "plain", "wide"]
    check_walks(narrow, done[1:])
    assert sum(t.state.name == "COMPLETE" for t in done) == 12
    assert change_space(store, "s", "narrow", narrow).added == [], "not twice"


@on_sqlite
def test_a_handed_back_trial_goes_on_in_the_new_space(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=1)
    steps = iter(range(1000))
    work(store, study, SimulatedEngine(), tmp_path, lambda: next(steps) > 2)
    [before] = trials_of(store, study)
    assert before.state.name == "WAITING" and before.intermediate_values
    wider = small_space(batch_size={"choices": [32, 64]})
    assert change_space(store, "s", "wider", wider).waiting == [0]
    engine = SimulatedEngine()
    work(store, studies.load_study(store, "s"), engine, tmp_path)
    [after] = trials_of(store, study)
    assert engine.admitted == [(trial_id(after), len(before.intermediate_values))], "from its checkpoint"
    check_walks(wider, [after])
    assert after.state.name == "COMPLETE" and after.user_attrs["config"] == before.user_attrs["config"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "wine"}, r'data: "digits" in the study, "wine" now'),
        ({"split": {"validation": 0.3}}, r"split.validation: 0.2 in the study, 0.3 now"),
        ({"metric": "macro_f1"}, r'metric: "accuracy" in the study, "macro_f1" now'),
        ({"mlp": None, "cnn": {"depth": 1, "channels": 8}}, r'family: "mlp" in the study, "cnn" now'),
        (
            {"epochs": 9},
            r"none of its 16 finished trials fits the new space \(trial 0: epochs: is 6, the space gives 9",
        ),
    ],
)
@on_sqlite
def test_what_cannot_be_mapped_is_refused_and_nothing_is_changed(
    store: Store, make_study: MakeStudy, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    study = finished_study(store, make_study, tmp_path)
    before = rows(store)
    with pytest.raises(StudyError, match=message) as caught:
        change_space(store, "s", "other", small_space(**changes))
    assert len(str(caught.value).splitlines()) == 1 and "Start another study" in str(caught.value)
    assert rows(store) == before and studies.load_study(store, "s") == study


def rows(store: Store) -> list[list[tuple[object, ...]]]:
    tables = [*schema.optuna_tables.sorted_tables, schema.hpo_studies]
    with store.read() as connection:
        return [sorted(map(tuple, connection.execute(sa.select(table))), key=repr) for table in tables]


def test_a_failure_midway_writes_nothing(
    store: Store, make_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_study(store, make_study, tmp_path)
    before = rows(store)
    monkeypatch.setattr("hpo.store.studies.invalidate_caches", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        change_space(store, "s", "narrow", small_space(optimizer={"name": "adam", "lr": LR}))
    assert rows(store) == before


@pytest.mark.slow
def test_a_study_with_workers_is_refused_and_a_late_worker_notices(
    store: Store, make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study(trials=3)
    wider = small_space(batch_size={"choices": [32, 64]})
    with Session(store, study, {}), pytest.raises(StudyError, match="must be at rest, got 1 worker"):
        change_space(store, "s", "wider", wider)
    assert studies.load_study(store, "s") == study
    change_space(store, "s", "wider", wider)
    with pytest.raises(StoreError, match='Study "s" was given another space'), Session(store, study, {}):
        pass  # a worker that read the study before
    work(store, studies.load_study(store, "s"), SimulatedEngine(), tmp_path)
    check_walks(wider, trials_of(store, study))


@on_sqlite
def test_failed_trials_outside_the_space_are_not_retried(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    from hpo.store import admin
    from hpo.training.engine import Fault

    def fault(config: TrialConfig, epoch: int) -> Fault | None:
        return Fault("error", "odd") if config.seed % 2 and epoch == 2 else None

    study = make_study(trials=10, max_failures=100)
    work(store, study, SimulatedEngine(fault=fault), tmp_path)
    narrow = small_space(optimizer={"name": "adam", "lr": LR})
    change_space(store, "s", "narrow", narrow)
    failed = [t for t in trials_of(store, study) if t.state.name == "FAIL"]
    fitting = [t.number for t in failed if t.params.get("optimizer.name", "adam") == "adam"]
    assert 0 < len(fitting) < len(failed)
    assert [old for old, _ in admin.retry(store, "s", None)] == fitting


@on_sqlite
def test_the_command_says_what_became_of_the_trials(
    store: Store, make_study: MakeStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hpo.cli.commands import studies as commands

    finished_study(store, make_study, tmp_path, space={"baselines": [baseline("plain", 16, "sgd")]})
    file = tmp_path / "narrow.toml"
    file.write_text(
        'data = "digits"\nepochs = 6\nbatch_size = 32\n'
        "[mlp]\ndepth = { low = 1, high = 3 }\nwidth = { low = 8, high = 64, step = 8 }\n"
        '[optimizer]\nname = "adam"\nlr = { low = 1e-5, high = 1e-1, log = true }\n'
    )
    url = store.url.render_as_string(hide_password=False)
    commands.set_space("s", str(file), storage=url, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert len(said["kept"]) + len(said["hidden"]) == 16 and said["hidden"][0] == {
        "trial": 0,
        "why": said["hidden"][0]["why"],
    }
    commands.set_space("s", str(file), storage=url)
    text = capsys.readouterr().out
    assert text.startswith(f"{len(said['kept'])} finished trial(s) fit and stay as history, {len(said['hidden'])} do")
    assert "  trial 0: optimizer" in text


@pytest.mark.slow
def test_ten_thousand_trials_are_not_asked_for_one_by_one(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    """Statements do not grow with the trials: what is written is written in bulk."""
    study = finished_study(store, make_study, tmp_path, trials=40)
    statements: list[str] = []
    sa.event.listen(store.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    change_space(store, study.name, "wider", small_space(batch_size={"choices": [32, 64]}))
    assert len(statements) < 40
    assert len(trials_of(store, study)[0].params) == len(trials_of(store, study)[0].distributions)
    with store.read() as connection:
        assert all("batch_size" in t.params for t in trial_rows.load_trials(connection, study.study_id))
