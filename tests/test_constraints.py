"""Constraints: judged before training, free of charge, taught to the sampler, and never drawn against for ever."""

from collections.abc import Mapping
from pathlib import Path

import optuna
import pytest
import torch

from hpo.config import CNN, MLP, SGD, Adam, TrialConfig
from hpo.constraints import Constraints, Cost
from hpo.errors import DocumentError
from hpo.optuna_compat import trial_id
from hpo.recipe import Budget, Pruner, Sampler, StudyRecipe
from hpo.results import confirmation
from hpo.runner.constraint_check import MAX_REJECTED
from hpo.service.create import StudyRequest, open_study
from hpo.store import queries, studies
from hpo.store.change_space import change_space
from hpo.store.database.connect import Store, exists
from hpo.store.database.url import parse
from hpo.store.record import State
from hpo.store.studies import StudyRecord
from hpo.training.engine import TrialFault
from hpo.training.model_cost import latency_ms, measure, memory_mb
from hpo.training.simulated import SimulatedEngine
from hpo.training.solo import SoloEngine
from tests.helpers.studies import MakeStudy, mlp, on_sqlite, small_space, trials_of, work

SMALL = {"max_parameters": 60}
"""For the fake engine, which takes the sum of all widths for the number of parameters."""


def widths(trial: optuna.trial.FrozenTrial) -> int:
    return sum(trial.user_attrs["config"]["model"]["widths"])


def constrained(store: Store, name: str, sampler: str, constraints: Mapping[str, object], trials: int) -> StudyRecord:
    recipe = StudyRecipe(
        budget=Budget(trials=trials),
        pruner=Pruner(name="none"),
        sampler=Sampler.model_validate({"name": sampler, "startup_trials": 10}),
    )
    assert studies.create(store, name, "small", small_space(constraints=constraints), recipe, "f" * 64)
    return studies.load_study(store, name)


def test_what_breaks_a_constraint_is_not_trained_and_costs_nothing(
    store: Store, make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study(trials=12, max_failures=1, space={"constraints": SMALL})
    engine = SimulatedEngine()
    over = work(store, study, engine, tmp_path)
    assert over is not None and over.reason == "all 12 trials are finished"
    found = trials_of(store, study)
    rejected = [t for t in found if "infeasible" in t.user_attrs]
    trained = [t for t in found if t.state.name == "COMPLETE"]
    assert len(trained) == 12 and len(rejected) > 3 and len(trained) + len(rejected) == len(found)
    assert all(widths(t) <= 60 for t in trained) and all(widths(t) > 60 for t in rejected)
    assert {key for key, _ in engine.admitted} == {trial_id(t) for t in trained}
    for trial in found:
        assert trial.user_attrs["costs"] == {"parameters": widths(trial)}
        assert trial.constraints == {"max_parameters": widths(trial) / 60 - 1}, "as Optuna knows constraints"
    assert rejected[0].user_attrs["infeasible"] == f"{widths(rejected[0])} parameters, max_parameters is 60"
    with store.read() as connection:
        view = queries.study(connection, study.study_id)
        ended = queries.last_ended(connection, study.study_id, 99)
    assert view.infeasible == len(rejected) and view.counts[State.FAIL] == 0 and view.finished == 12
    assert {t.number for t in ended} == {t.number for t in trained}


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "gp", "qmc", "random"])
@on_sqlite
def test_constrained_draws_are_the_same_whoever_draws(store: Store, tmp_path: Path, sampler: str) -> None:
    drawn = []
    trials = 7 if sampler == "gp" else 14  # a Gaussian process takes a second for each draw
    for name, pauses in (("one", 10**6), ("many", 9)):
        study = constrained(store, name, sampler, SMALL, trials)
        over = None
        while over is None:
            steps = iter(range(10**6))
            over = work(store, study, SimulatedEngine(), tmp_path / name, lambda: next(steps) > pauses)  # noqa: B023
        assert over.reason == f"all {trials} trials are finished"
        drawn.append([(t.state, t.params, t.constraints) for t in trials_of(store, study)])
    assert drawn[0] == drawn[1] and len(drawn[0]) > max(trials, 10), "the first 10 are random"


@pytest.mark.slow
@on_sqlite
def test_a_sampler_learns_what_is_infeasible(store: Store, tmp_path: Path) -> None:
    """Of the draws after the first 10, TPE wastes far fewer than random does."""
    wasted = {}
    for sampler in ("tpe", "random"):
        study = constrained(store, sampler, sampler, {"max_parameters": 32}, 30)
        work(store, study, SimulatedEngine(), tmp_path / sampler)
        wasted[sampler] = sum("infeasible" in t.user_attrs for t in trials_of(store, study)[10:])
    assert wasted["tpe"] < 0.6 * wasted["random"]


@pytest.mark.slow
@on_sqlite
def test_a_space_without_anything_feasible_ends(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=5, space={"constraints": {"max_parameters": 1}})
    over = work(store, study, SimulatedEngine(capacity=2), tmp_path)
    assert over is not None and over.reason.startswith(f"{MAX_REJECTED} draws in a row broke the constraints (")
    assert "parameters, max_parameters is 1); loosen them or narrow the space" in over.reason
    count = len(trials_of(store, study))
    assert MAX_REJECTED <= count <= MAX_REJECTED + 1
    studies.update_budget(store, study)  # as `hpo run` does
    again = work(store, study, SimulatedEngine(), tmp_path)
    assert again is not None and again.reason.startswith(f"{MAX_REJECTED} draws in a row")
    assert len(trials_of(store, study)) <= count + 2, "it tries once more, not a hundred times"


def test_what_breaks_a_cheap_constraint_is_not_timed(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=6, space={"constraints": SMALL | {"max_latency_ms": 1e9}})
    engine = SimulatedEngine()
    work(store, study, engine, tmp_path)
    timed = [sum(mlp(config).widths) for config, wanted in engine.measured if "latency_ms" in wanted]
    counted = [sum(mlp(config).widths) for config, wanted in engine.measured if "parameters" in wanted]
    assert timed == [width for width in counted if width <= 60] and len(timed) < len(counted)
    assert {frozenset(t.constraints) for t in trials_of(store, study)} == {
        frozenset(("max_parameters", "max_latency_ms"))
    }


@on_sqlite
def test_a_trial_that_goes_on_is_not_judged_again(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=1, space={"constraints": {"max_latency_ms": 1e9}})
    steps = iter(range(1000))
    work(store, study, SimulatedEngine(), tmp_path, lambda: next(steps) > 2)
    engine = SimulatedEngine(costs=lambda config, name: 1e12)
    work(store, study, engine, tmp_path)
    assert engine.measured == [] and [t.state.name for t in trials_of(store, study)] == ["COMPLETE"]


@pytest.mark.slow
def test_constraints_can_be_set_and_loosened_later(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=16)
    work(store, study, SimulatedEngine(), tmp_path)
    free = trials_of(store, study)
    # The fake engine says of every trained trial that it has 1000 parameters.
    assert change_space(store, "s", "tight", small_space(constraints={"max_parameters": 1000})).hidden == {}
    assert all(t.constraints == {"max_parameters": 0.0} for t in trials_of(store, study))
    study = studies.load_study(store, "s")
    studies.update_budget(store, study, trials=20)
    engine = SimulatedEngine(costs=lambda config, name: 2000.0 if config.optimizer.name == "sgd" else 500.0)
    work(store, study, engine, tmp_path)
    rejected = [t for t in trials_of(store, study) if "infeasible" in t.user_attrs]
    assert rejected and all(t.params["optimizer.name"] == "sgd" for t in rejected)
    wider = small_space(batch_size={"choices": [32, 64]}, constraints={"max_parameters": 1500})
    result = change_space(store, "s", "wider", wider)
    assert result.hidden == {} and len(result.kept) == 20
    for trial in trials_of(store, study)[16:]:
        assert trial.params["batch_size"] in (32, 64), "what was rejected has the new parameters too"
    rejected_now = [t for t in trials_of(store, study) if "infeasible" in t.user_attrs]
    assert all(t.constraints["max_parameters"] == pytest.approx(1 / 3) for t in rejected_now)
    change_space(store, "s", "loose", small_space(constraints={"max_parameters": 5000}))
    rejected_now = [t for t in trials_of(store, study) if "infeasible" in t.user_attrs]
    assert all("that no longer hold" in t.system_attrs["outside"] for t in rejected_now)
    assert len(free) == 16


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("gp", marks=pytest.mark.slow)])
@on_sqlite
def test_samplers_go_on_after_constraints_were_set(store: Store, tmp_path: Path, sampler: str) -> None:
    study = constrained(store, "s", sampler, {}, 12)
    work(store, study, SimulatedEngine(), tmp_path)
    change_space(store, "s", "tight", small_space(constraints={"max_parameters": 1000, "max_latency_ms": 40.0}))
    study = studies.load_study(store, "s")
    studies.update_budget(store, study, trials=16)
    over = work(store, study, SimulatedEngine(), tmp_path)
    assert over is not None and over.reason == "all 16 trials are finished"
    assert sum("infeasible" in t.user_attrs for t in trials_of(store, study)) > 0


SPACE = """
data = "digits"
epochs = 2
batch_size = 32
[mlp]
depth = 1
width = { low = 8, high = 64, step = 8 }
[optimizer]
name = "adam"
lr = 0.01
[constraints]
max_parameters = 2000
[[baselines]]
name = "wide"
params = { mlp = { width = [64] } }
"""


def test_a_baseline_that_breaks_a_constraint_is_refused_when_the_study_is_made(tmp_path: Path) -> None:
    url, space = f"sqlite:///{tmp_path}/a.db", tmp_path / "space.toml"
    space.write_text(SPACE)
    message = (
        r'baselines.0, "wide": must keep the constraints, got 4,810 parameters, max_parameters is 2,000. '
        r"Loosen \[constraints\] or remove the baseline."
    )
    with pytest.raises(DocumentError, match=message):
        open_study(StudyRequest(space=space, study="s", recipe="smoke", storage=url))
    assert not exists(parse(url))


@on_sqlite
def test_a_confirmation_is_not_constrained(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=3, space={"constraints": {"max_latency_ms": 1e9}})
    work(store, study, SimulatedEngine(), tmp_path)
    assert confirmation.prepare(store, study, 1, 2).space.constraints == Constraints()


def config(network: MLP | CNN, **changes: object) -> TrialConfig:
    return TrialConfig(data="digits", model=network, optimizer=Adam(lr=0.01), batch_size=32, epochs=1, **changes)  # type: ignore[arg-type]


def test_memory_is_parameters_gradients_state_and_activations() -> None:
    network = MLP((8,), (0.0,))
    parameters = 64 * 8 + 8 + 8 * 10 + 10
    activations = 32 * (64 + 8 + 8 + 10)  # the batch, linear, relu, output
    assert memory_mb(config(network), (64,), 10) == pytest.approx((4 * parameters + activations) * 4 / 1e6)
    plain = TrialConfig(data="digits", model=network, optimizer=SGD(lr=0.1), batch_size=32, epochs=1)
    assert memory_mb(plain, (64,), 10) == pytest.approx((2 * parameters + activations) * 4 / 1e6)
    parts = config(network, accumulation=4)
    assert memory_mb(parts, (64,), 10) == pytest.approx((4 * parameters + activations / 4) * 4 / 1e6)


def test_costs_of_real_networks_are_found_without_training(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    small, large = config(MLP((8,), (0.0,))), config(MLP((2048, 2048), (0.0, 0.0)))
    state = torch.random.get_rng_state()
    names: tuple[Cost, ...] = ("parameters", "memory_mb", "latency_ms")
    cheap, dear = (measure(each, (64,), 10, cpu, names) for each in (small, large))
    assert cheap["parameters"] == 610 and dear["parameters"] == 64 * 2048 + 2048 + 2048**2 + 2048 + 20480 + 10
    assert 0 < cheap["latency_ms"] < dear["latency_ms"] and cheap["memory_mb"] < dear["memory_mb"]
    assert torch.equal(state, torch.random.get_rng_state()), "measuring draws nothing of torch's own chance"
    image = config(CNN((8, 16), (0.0, 0.2), norm="batch", head_width=8))
    assert latency_ms(image, (1, 8, 8), 10, cpu) > 0 and memory_mb(image, (1, 8, 8), 10) > 0
    with pytest.raises(TrialFault, match="images must be at least"):
        SoloEngine(cpu).measure(config(CNN((8,) * 5, (0.0,) * 5)), ["parameters"])


@on_sqlite
def test_a_real_engine_keeps_to_real_constraints(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=3, space={"epochs": 1, "constraints": {"max_parameters": 3000, "max_memory_mb": 0.2}})
    over = work(store, study, SoloEngine(torch.device("cpu")), tmp_path)
    assert over is not None and over.reason == "all 3 trials are finished"
    for trial in trials_of(store, study):
        kept = trial.user_attrs["costs"]["parameters"] <= 3000 and trial.user_attrs["costs"].get("memory_mb", 0) <= 0.2
        assert kept == (trial.state.name == "COMPLETE")
        if kept:
            assert trial.user_attrs["costs"]["parameters"] == trial.user_attrs["parameters"]


def test_broken_limits_are_named() -> None:
    limits = Constraints(max_parameters=1000, max_latency_ms=2.5)
    assert limits.broken({"parameters": 12345, "latency_ms": 3.14159}) == (
        "12,345 parameters, max_parameters is 1,000; 3.14 ms per row, max_latency_ms is 2.5"
    )
    assert limits.broken({"parameters": 1000}) == "" and limits.excess({"parameters": 500}) == {
        "parameters": -0.5,
        "latency_ms": 0.0,
    }
