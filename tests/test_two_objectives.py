"""Two objectives: a front instead of a best, and pruning among those that cost no more."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from hpo.config import TrialConfig
from hpo.errors import DocumentError, StudyError, UsageError
from hpo.recipe import Budget, Pruner, Sampler, StudyRecipe
from hpo.results import confirmation, export
from hpo.results.report import report
from hpo.service.create import StudyRequest, open_study, parse_objective
from hpo.store import admin, queries, studies
from hpo.store.change_space import change_space
from hpo.store.database.connect import Store
from hpo.store.studies import StudyRecord
from hpo.training.engine import Fault
from hpo.training.simulated import SimulatedEngine, accuracy
from tests.helpers.oracles import ORACLES
from tests.helpers.studies import on_sqlite, small_space, trials_of, work

Made = Callable[..., StudyRecord]


@pytest.fixture
def make(store: Store) -> Made:
    def made(name: str = "s", sampler: str = "tpe", pruner: str = "none", **kwargs: Any) -> StudyRecord:
        space = small_space(**kwargs.pop("space", {}))
        recipe = StudyRecipe(
            objective=("accuracy", kwargs.pop("cost", "parameters")),
            budget=Budget.model_validate({"trials": 30} | kwargs),
            pruner=Pruner.model_validate({"name": pruner}),
            sampler=Sampler.model_validate({"name": sampler, "startup_trials": 8, "population": 6}),
        )
        assert studies.create(store, name, "small", space, recipe, "f" * 64)
        return studies.load_study(store, name)

    return made


def widths(trial: optuna.trial.FrozenTrial) -> int:
    return sum(trial.user_attrs["config"]["model"]["widths"])


def rate(config: TrialConfig, name: str = "") -> float:
    """A cost that is at odds with the fake engine's accuracy, which is best near 0.01."""
    return float(round(1e6 * config.optimizer.lr))


def stored(store: Store, name: str = "s") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=store.url.render_as_string(hide_password=False))


def test_both_values_are_stored_and_the_front_is_optunas(store: Store, make: Made, tmp_path: Path) -> None:
    study = make()
    over = work(store, study, SimulatedEngine(costs=rate), tmp_path)
    assert over is not None and over.reason == "all 30 trials are finished"
    theirs = stored(store)
    directions = [d.name for d in theirs.directions]
    assert directions == ["MAXIMIZE", "MINIMIZE"] and theirs.metric_names == ["validation accuracy", "parameters"]
    for trial in theirs.trials:
        config = TrialConfig.from_dict(trial.user_attrs["config"], "t")
        assert trial.values == [accuracy(config, 6), rate(config)]
    with store.read() as connection:
        front = queries.front(connection, study.study_id)
        best = queries.best_trials(connection, study.study_id, 1)[0]
        view = queries.study(connection, study.study_id)
    assert {(t.value, t.cost) for t in front} == {tuple(t.values) for t in theirs.best_trials} and len(front) > 2
    assert [t.value for t in front] == sorted((t.value or 0.0 for t in front), reverse=True)
    assert best.number == front[0].number and view.best_value == best.value
    assert (view.metric, view.cost) == ("accuracy", "parameters")
    assert (view.metric_label, view.cost_label) == ("validation accuracy", "parameters")


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp", "qmc", "random"])
@pytest.mark.parametrize("constraints", [{}, {"max_parameters": 100}])
@on_sqlite
def test_every_sampler_draws_the_same_whoever_draws(
    store: Store, make: Made, tmp_path: Path, sampler: str, constraints: dict[str, object]
) -> None:
    drawn = []
    trials = 11 if sampler == "gp" else 22  # the first 8 are random, and a Gaussian process takes seconds for a draw
    for name, pauses in (("one", 10**6), ("many", 11)):
        study = make(name, sampler, "median", trials=trials, space={"constraints": constraints})
        over = None
        while over is None:
            steps = iter(range(10**6))
            over = work(store, study, SimulatedEngine(), tmp_path / name, lambda: next(steps) > pauses)  # noqa: B023
        found = trials_of(store, study)
        drawn.append([(t.state, t.params) for t in found])
        assert any("infeasible" in t.user_attrs for t in found) == bool(constraints)
    assert drawn[0] == drawn[1]


@on_sqlite
def test_nsga2_breeds_generations(store: Store, make: Made, tmp_path: Path) -> None:
    study = make(sampler="nsga2", trials=30)
    work(store, study, SimulatedEngine(), tmp_path)
    generations = [t.system_attrs["_NSGA2:generation"] for t in trials_of(store, study)]
    assert generations == sorted(generations) and max(generations) == 4
    assert all(generations.count(g) == 6 for g in range(5))


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["successive_halving", "median", "percentile"])
@on_sqlite
def test_pruning_is_optunas_among_those_that_cost_no_more(
    store: Store, make: Made, tmp_path: Path, pruner: str
) -> None:
    """For each trial a study of Optuna's own, with the earlier trials of no larger cost in it, prunes as ours did."""
    study = make(pruner=pruner, sampler="random", trials=60)
    work(store, study, SimulatedEngine(), tmp_path)
    found = trials_of(store, study)
    assert 5 < sum(t.state.name == "PRUNED" for t in found) < 55
    for trial in found:
        oracle = optuna.create_study(direction="maximize", pruner=ORACLES[pruner])
        for other in found[: trial.number]:
            if other.system_attrs["cost"] <= trial.system_attrs["cost"]:
                oracle.add_trial(
                    optuna.trial.create_trial(
                        state=other.state,
                        value=other.values[0],
                        intermediate_values=other.intermediate_values,
                        system_attrs=other.system_attrs,
                    )
                )
        config, asked, pruned = TrialConfig.from_dict(trial.user_attrs["config"], "t"), oracle.ask(), False
        for epoch in range(1, 6):
            asked.report(accuracy(config, epoch), epoch)
            pruned = asked.should_prune()
            if pruned:
                break
        assert pruned == (trial.state.name == "PRUNED"), trial.number
        if pruned:
            assert max(trial.intermediate_values) == epoch
            assert trial.values == [accuracy(config, epoch), widths(trial)]


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["successive_halving", "hyperband", "median"])
@on_sqlite
def test_what_is_pruned_was_beaten_by_something_no_larger(
    store: Store, make: Made, tmp_path: Path, pruner: str
) -> None:
    study = make(pruner=pruner, trials=50)
    work(store, study, SimulatedEngine(), tmp_path)
    found = trials_of(store, study)
    pruned = [t for t in found if t.state.name == "PRUNED"]
    assert pruned
    for trial in pruned:
        epoch = max(trial.intermediate_values)
        rivals = [t for t in found if t.number < trial.number and widths(t) <= widths(trial)]
        assert any(
            max(v for e, v in t.intermediate_values.items() if e <= epoch) > trial.intermediate_values[epoch]
            for t in rivals
        )


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
@on_sqlite
def test_faults_and_resumed_trials_do_no_harm(store: Store, make: Made, tmp_path: Path, sampler: str) -> None:
    def fault(config: TrialConfig, epoch: int) -> Fault | None:
        kind = {0: "diverged", 1: "error"}.get(config.seed % 6)
        return Fault(kind, "as planned") if kind and epoch == 2 else None  # type: ignore[arg-type]

    study = make(sampler=sampler, trials=25, max_failures=99)
    over = None
    while over is None:
        steps = iter(range(1000))
        over = work(store, study, SimulatedEngine(3, fault=fault), tmp_path, lambda: next(steps) > 8)  # noqa: B023
    found = trials_of(store, study)
    assert sum(t.state.name in ("COMPLETE", "PRUNED") for t in found) == 25
    diverged = [t for t in found if t.state.name == "PRUNED"]
    assert diverged and all(t.values == [0.0, widths(t)] for t in diverged)


def test_limits_go_by_the_metric(store: Store, make: Made, tmp_path: Path) -> None:
    over = work(store, make(trials=99, target=0.8), SimulatedEngine(), tmp_path)
    assert over is not None and over.reason == "the target 0.8 is reached"
    assert max(t.values[0] for t in stored(store).trials if t.values) >= 0.8


@pytest.mark.slow
def test_the_front_is_exported_confirmed_and_reported(
    store: Store, make: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hpo.cli.commands import studies as commands
    from hpo.runner.dashboard_note import note

    study = make(pruner="median", cost="latency_ms")
    work(store, study, SimulatedEngine(costs=rate), tmp_path)
    with store.read() as connection:
        front = queries.front(connection, study.study_id)
        text = note(connection, study, {})
    chosen = export.winner(store, study)
    assert chosen.provenance["trial"] == front[0].number and chosen.provenance["latency_ms"] == front[0].cost
    other = export.winner(store, study, front[-1].number)
    assert other.provenance["trial"] == front[-1].number and "chosen by hand" in other.chosen
    assert other.config.to_dict() == front[-1].attributes.config
    pruned = next(t.number for t in trials_of(store, study) if t.state.name == "PRUNED")
    with pytest.raises(StudyError, match=f"trial {pruned} must be complete to be exported, got pruned"):
        export.winner(store, study, pruned)
    with pytest.raises(StudyError, match="trial 999 must be complete to be exported, got none of this number"):
        export.winner(store, study, 999)
    confirming = confirmation.prepare(store, study, 3, 2)
    assert confirming.recipe.objective == "accuracy"
    work(store, confirming, SimulatedEngine(), tmp_path / "confirm")
    result = confirmation.evaluate(store, study)
    assert result is not None and {c.number for c in result.candidates} == {t.number for t in front[:3]}
    page = report(store, study, "")
    assert "Pareto front" in page and '"front"' in page and "latency in ms" in page
    assert f"| {front[1].number} | {front[1].value:.4f} |" in text
    url = store.url.render_as_string(hide_password=False)
    commands.show("s", top=20, storage=url, as_json=True)
    assert json.loads(capsys.readouterr().out)["front"] == [t.number for t in front]
    commands.show("s", top=20, storage=url, as_json=False)
    said = capsys.readouterr().out
    assert f"Pareto front, {len(front)} of {len(front)}" in said and "latency in ms" in said


@pytest.mark.slow
def test_a_copy_and_another_space_keep_both_objectives(store: Store, make: Made, tmp_path: Path) -> None:
    study = make(pruner="median", trials=16)
    work(store, study, SimulatedEngine(), tmp_path)
    admin.copy(store, "s", store, "t")
    change_space(store, "t", "wider", small_space(batch_size={"choices": [32, 64]}))
    copied = studies.load_study(store, "t")
    assert [t.values for t in stored(store, "t").trials] == [t.values for t in stored(store).trials]
    studies.update_budget(store, copied, trials=20)
    work(store, copied, SimulatedEngine(), tmp_path / "t")
    assert all(len(t.values) == 2 for t in stored(store, "t").trials)
    assert len(stored(store, "t").directions) == 2


def test_objectives_are_read_and_refused(tmp_path: Path) -> None:
    assert (
        parse_objective("accuracy,parameters") == ["accuracy", "parameters"]
        and parse_objective("macro_f1") == "macro_f1"
    )
    with pytest.raises(UsageError, match='no cost named "parametres"'):
        parse_objective("accuracy,parametres")
    recipe = tmp_path / "r.toml"
    url = f"sqlite:///{tmp_path}/a.db"
    both = {"objective": ["accuracy", "parameters"]}
    two = StudyRequest(space="ann_digits", study="s", storage=url, overrides=both)
    for text, message in (
        ('sampler = { name = "nsga2" }', r"sampler.name: nsga2 needs two objectives, got one. Set objective = "),
        ('objective = ["accuracy", "size"]', r"objective.1: must be one of 'parameters' or 'latency_ms', got \"size\""),
        ('objective = ["accuracy"]', r"objective"),
    ):
        recipe.write_text(text)
        with pytest.raises(DocumentError, match=message) as caught:
            open_study(StudyRequest(space="ann_digits", study="s", recipe=recipe, storage=url))
        assert len(str(caught.value).splitlines()) == 1
    recipe.write_text('objective = ["accuracy", "parameters"]\nsampler = { name = "nsga2" }')
    with pytest.raises(DocumentError, match="nsga2 needs two objectives"):
        open_study(replace(two, recipe=recipe, overrides={"objective": "accuracy"}))
    first = open_study(two)
    study = first.study
    assert first.created and study.recipe.cost == "parameters" and study.metric == "accuracy"
    again = open_study(two)
    assert again.study == study and not again.created
    with pytest.raises(StudyError, match=r'objective: \["accuracy", "parameters"\] in the study, "accuracy" now'):
        open_study(replace(two, overrides={"objective": "accuracy"}))
