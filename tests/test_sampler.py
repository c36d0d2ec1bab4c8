"""The Gaussian process: what it is shown of a study, that it learns from it, and what happens where it cannot."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from hpo.recipe import Budget, Pruner, Sampler, StudyRecipe
from hpo.store import studies
from hpo.store.database import trial_rows
from hpo.store.database.connect import Store
from hpo.store.record import TrialAttributes
from hpo.store.studies import StudyRecord
from hpo.strategy.gaussian_process import GaussianProcess
from hpo.strategy.pruner_view import PrunerView
from hpo.strategy.pruners import make_pruner
from hpo.strategy.sampler_view import ModelView, middle_of
from hpo.strategy.study_cache import StudyCache
from hpo.training.simulated import SimulatedEngine
from tests.helpers.studies import on_sqlite, small_space, trials_of, work

LR = FloatDistribution(1e-4, 1e-1, log=True)
OPTIMIZER = CategoricalDistribution(["adam", "sgd"])
MOMENTUM = FloatDistribution(0.8, 0.98, step=0.02)
COMPLETE, PRUNED, RUNNING, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.FAIL
PARAMS = {"lr": (0.01, LR), "optimizer": ("adam", OPTIMIZER)}


class Trials:
    """Adds trials to the cache of a study that is in no store."""

    def __init__(self) -> None:
        self.cache = StudyCache(1, "s", lambda changes: None)
        self.count = 0

    def add(
        self,
        state: TrialState,
        reports: list[float],
        params: dict[str, tuple[Any, optuna.distributions.BaseDistribution]] | None = None,
        schedule: str = "none",
        *,
        system: Mapping[str, Any] | None = None,
    ) -> FrozenTrial:
        trial = trial_rows.empty(self.count + 100, self.count)
        self.count += 1
        drawn = PARAMS if params is None else params
        trial.params = {name: value for name, (value, _) in drawn.items()}
        if schedule != "none":
            trial.params["schedule.name"] = schedule
        trial.distributions = {name: distribution for name, (_, distribution) in drawn.items()}
        trial.intermediate_values = dict(enumerate(reports, 1))
        trial.system_attrs = dict(system or {})
        trial.state, trial.values = state, [reports[-1]] if state == COMPLETE else None
        self.cache.lease(trial)
        return trial


@pytest.fixture
def trials() -> Trials:
    return Trials()


def rising(end: float, last: int = 10, gain: float = 0.5) -> list[float]:
    """A curve whose difference to 1 shrinks by the factor exp(-gain) over ten epochs."""
    return [1 - (1 - end) * math.exp(gain * (1 - epoch / 10)) for epoch in range(1, last + 1)]


def shown(view: ModelView) -> list[FrozenTrial]:
    view.begin_draw(-1)
    return view.get_all_trials(1, deepcopy=False)


def test_pruned_trials_are_shown_with_the_value_they_would_have_ended_with(trials: Trials) -> None:
    for end in (0.8, 0.9, 0.85):
        trials.add(COMPLETE, rising(end))
    for _ in range(20):
        trials.add(PRUNED, rising(0.82, 3))
    rows = shown(ModelView(trials.cache, 10))
    assert {t.state for t in rows} == {COMPLETE}
    assert [t.value for t in rows[:3]] == pytest.approx([0.82, 0.9, 0.85]), "0.8 is clipped"
    assert [t.value for t in rows[3:]] == pytest.approx([0.82] * 20), "about 0.75 after epoch 3, then like the others"


def test_low_values_are_clipped(trials: Trials) -> None:
    values = [0.1] * 2 + [0.8 + i / 100 for i in range(18)]
    for value in values:
        trials.add(COMPLETE, [value])
    trials.add(PRUNED, [0.5, 0.0], system={"diverged": True})
    trials.add(FAIL, [], system={"constraints:max_parameters": 0.5})
    rows = shown(ModelView(trials.cache, 10))
    floor = float(np.quantile([*values, 0.0], 0.15))
    assert [t.value for t in rows] == pytest.approx([max(v, floor) for v in values] + [floor, floor])
    assert floor > 0.7


def test_every_row_has_every_parameter(trials: Trials) -> None:
    trials.add(COMPLETE, [0.8])
    trials.add(COMPLETE, [0.9], {"lr": (0.1, LR), "optimizer": ("sgd", OPTIMIZER), "momentum": (0.98, MOMENTUM)})
    trials.add(RUNNING, [], {"lr": (0.1, LR), "optimizer": ("adam", OPTIMIZER)})
    rows = shown(ModelView(trials.cache, 10))
    assert [t.params.get("momentum") for t in rows] == pytest.approx([0.88, 0.98, 0.88])
    assert rows[0].distributions == rows[2].distributions and rows[2].state == RUNNING
    with_all = GaussianProcess(1).infer_relative_search_space(Study("s", ModelView(trials.cache, 10)), rows[0])
    assert set(with_all) == {"lr", "optimizer", "momentum"}


@pytest.mark.parametrize(
    ("distribution", "middle"),
    [
        (FloatDistribution(1e-4, 1e-2, log=True), 1e-3),
        (FloatDistribution(0.0, 1.0, step=0.25), 0.5),
        (IntDistribution(8, 504, step=8), 256),
        (IntDistribution(1, 64, log=True), 8),
        (CategoricalDistribution(["a", "b"]), "a"),
    ],
)
def test_the_middle_of_a_range(distribution: optuna.distributions.BaseDistribution, middle: Any) -> None:
    assert middle_of(distribution) == pytest.approx(middle)
    assert distribution._contains(distribution.to_internal_repr(middle_of(distribution)))


@pytest.mark.parametrize("two_objectives", [False, True])
def test_of_many_trials_the_best_and_an_even_choice_of_the_others_are_shown(two_objectives: bool) -> None:
    trials = Trials()
    trials.cache.two_objectives = two_objectives
    for i in range(1000):
        trials.add(COMPLETE, [i / 1000], system={"cost": float((i * 7919) % 1000)} if two_objectives else {})
    rows = shown(ModelView(trials.cache, 10))
    assert len(rows) == ModelView.ROWS
    numbers = {t.number for t in rows}
    if not two_objectives:
        assert numbers >= set(range(950, 1000))
        assert np.histogram(sorted(numbers - set(range(950, 1000))), bins=5, range=(0, 950))[0].tolist() == [10] * 5
    else:
        front = [i for i in range(1000) if all((j * 7919) % 1000 >= (i * 7919) % 1000 for j in range(i, 1000))]
        assert numbers >= set(front)


def draw(trials: Trials, seed: int = 0, view: type[ModelView] = ModelView) -> dict[str, Any]:
    """Draw one more trial."""
    sampler, shown_to_it = GaussianProcess(5), view(trials.cache, 10)
    study = Study("s", shown_to_it, sampler=sampler)
    trial = trials.add(RUNNING, [], {})
    sampler.reseed_for(seed, trial.number, 0)
    shown_to_it.begin_draw(trial._trial_id)
    drawn = Trial(study, trial._trial_id)
    lr = drawn.suggest_float("lr", LR.low, LR.high, log=True)
    optimizer = drawn.suggest_categorical("optimizer", OPTIMIZER.choices)
    assert not sampler.failure
    return {"lr": lr, "optimizer": optimizer}


def parabola(lr: float) -> float:
    """Highest at lr = 0.01."""
    return 0.9 - 0.1 * abs(math.log10(lr) + 2)


def add_draws(trials: Trials, last: int) -> None:
    for i, lr in enumerate(np.geomspace(1e-4, 1e-1, 16)):
        state = COMPLETE if i % 5 == 0 else PRUNED
        curve = rising(parabola(float(lr)), 10 if state == COMPLETE else last)
        trials.add(state, curve, {"lr": (float(lr), LR), "optimizer": ("adam", OPTIMIZER)})


def test_it_draws_where_the_pruned_trials_say_the_best_is(trials: Trials) -> None:
    """The complete trials alone, at 1e-4, 1e-3, 1e-2 and 1e-1, are as good; those that show the peak were pruned."""
    add_draws(trials, last=3)
    assert 0.004 < draw(trials)["lr"] < 0.025


def test_a_trial_under_way_is_not_drawn_again(trials: Trials) -> None:
    add_draws(trials, last=3)
    alone = draw(trials)
    trials.cache.release(trials.count - 1 + 100)
    for _ in range(3):  # as many as a lane would take at once
        trials.add(RUNNING, [], {"lr": (alone["lr"], LR), "optimizer": (alone["optimizer"], OPTIMIZER)})
    beside = draw(trials)
    assert abs(np.log10(beside["lr"] / alone["lr"])) > 0.05 or beside["optimizer"] != alone["optimizer"]


def test_a_draw_follows_from_the_seed_and_what_is_known(trials: Trials) -> None:
    add_draws(trials, last=3)
    again = Trials()
    add_draws(again, last=3)
    assert draw(trials, 3) == draw(again, 3)


Made = Callable[..., StudyRecord]


@pytest.fixture
def make(store: Store) -> Made:
    def made(trials: int = 16, space: dict[str, object] | None = None, **pruner: Any) -> StudyRecord:
        recipe = StudyRecipe(
            budget=Budget(trials=trials), sampler=Sampler(name="gp", startup_trials=5), pruner=Pruner(**pruner)
        )
        assert studies.create(store, "s", "small", small_space(**(space or {})), recipe, "f" * 64)
        return studies.load_study(store, "s")

    return made


@on_sqlite
def test_where_the_model_fails_draws_are_random_and_say_so(
    store: Store, make: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def singular(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError("the matrix is not positive definite\nand more")

    monkeypatch.setattr("hpo.strategy.gaussian_process.propose", singular)
    over = work(store, make(8, name="none"), SimulatedEngine(), tmp_path)
    assert over is not None and over.reason == "all 8 trials are finished"
    drawn = trials_of(store, "s")
    notes = [t.user_attrs.get("drawn_at_random") for t in drawn]
    assert notes == [None] * 5 + ["LinAlgError: the matrix is not positive definite"] * 3
    assert len({str(t.params) for t in drawn}) == 8


@pytest.mark.slow
@on_sqlite
def test_the_trials_of_other_workers_are_projected_too(store: Store, make: Made, tmp_path: Path) -> None:
    study = make(20, name="successive_halving", compare="projection")
    work(store, study, SimulatedEngine(), tmp_path)
    cache = StudyCache(study.study_id, study.name, lambda changes: None)
    with store.read() as connection:
        cache.refresh(connection)
    pruned = [t for t in cache.visible_trials() if t.state == PRUNED]
    rows = ModelView(cache, study.space.max_epochs).values_of(cache.visible_trials())
    told = {trial.number: value for trial, value in rows}
    assert pruned and all(told[t.number] > t.intermediate_values[t.last_step or 0] for t in pruned)


@on_sqlite
def test_one_value_for_all_is_no_reason_to_fail(
    store: Store, make: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.training.simulated.value_of", lambda *_: 0.1)
    over = work(store, make(10, name="none"), SimulatedEngine(), tmp_path)
    assert over is not None and over.reason == "all 10 trials are finished"
    assert all("drawn_at_random" not in t.user_attrs for t in trials_of(store, "s"))


def test_a_pruner_that_compares_nothing_has_no_projection() -> None:
    with pytest.raises(ValueError, match=r'compare: "projection" needs a pruner that compares trials, got "patient"'):
        Pruner(name="patient", compare="projection")


def judged(trials: Trials, compare: Any, end: float, gain: float, schedule: str) -> bool:
    """Say whether a trial is pruned after epoch 3."""
    view = PrunerView(trials.cache, 10, compare)
    study = Study("s", view, pruner=make_pruner(Pruner(min_epochs=3, reduction=3), 10))
    trial = trials.add(RUNNING, rising(end, 3, gain), schedule=schedule)
    view.begin_decision(trial)
    pruned = study.pruner.prune(study, view.shown(trial))
    after = trials.cache.trial(trial._trial_id)
    assert ("compared" in after.user_attrs) == (compare == "projection")
    return bool(pruned)


@pytest.mark.parametrize(("compare", "is_pruned"), [("value", True), ("projection", False)])
def test_a_schedule_that_rises_late_is_compared_at_its_end(trials: Trials, compare: Any, is_pruned: bool) -> None:
    """At epoch 3 the annealed run is below all others; at the end it is above them."""
    for i in range(6):
        trials.add(COMPLETE, rising(0.80 + i / 1000, gain=0.1), system={"completed_rung_0": 0.79 + i / 1000})
    for i in range(3):
        trials.add(
            COMPLETE,
            rising(0.85 + i / 1000, gain=1.0),
            schedule="one_cycle",
            system={"completed_rung_0": 0.69 + i / 500},
        )
    for trial in trials.cache.visible_trials():
        if compare == "projection":
            compared = {"3": trial.system_attrs["completed_rung_0"]}
            trials.cache.note(trial._trial_id, TrialAttributes.compared.entry(compared))
    assert judged(trials, compare, 0.87, 1.0, "one_cycle") == is_pruned
    assert judged(trials, compare, 0.70, 1.0, "one_cycle"), "it ends below the others"


def test_the_best_of_an_unknown_schedule_goes_on(trials: Trials) -> None:
    """Nothing tells how much an annealed run still gains, so it is compared with other annealed ones."""
    for i in range(9):
        trials.add(COMPLETE, rising(0.80 + i / 1000, gain=0.1), system={"completed_rung_0": 0.80 + i / 1000})
    for _ in range(6):
        trials.add(PRUNED, rising(0.84, 3, gain=1.0), schedule="one_cycle", system={"completed_rung_0": 0.678})
    assert not judged(trials, "projection", 0.87, 1.0, "one_cycle")
    assert judged(trials, "projection", 0.82, 1.0, "one_cycle"), "others of its schedule are better"


def test_a_draw_without_a_cost_is_no_row_of_two_objectives(trials: Trials) -> None:
    trials.cache.two_objectives = True
    trials.add(COMPLETE, [0.8], system={"cost": 3.0})
    for cost in ({"cost": 2.0}, {}):
        trials.add(FAIL, [], system={"constraints:max_parameters": 0.5, **cost})
    assert [t.values for t in shown(ModelView(trials.cache, 10))] == [[0.8, 3.0], [0.8, 2.0]]
