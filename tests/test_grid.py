"""The grid sampler: every configuration of a conditional space once, however many workers draw."""

import io
import itertools
import threading
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from hpo.cli.render.opened import print_opened
from hpo.config import TrialConfig
from hpo.errors import UsageError
from hpo.grid import grid, key_of
from hpo.recipe import Budget, Pruner, Sampler, StudyRecipe
from hpo.runner.session import Session
from hpo.service.create import StudyRequest, open_study
from hpo.space import SearchSpace
from hpo.store import admin, studies
from hpo.store.change_space import change_space
from hpo.store.database.connect import Store, exists, open_store
from hpo.store.database.url import parse
from hpo.store.leases import claims
from hpo.store.leases.stopping import StopReason
from hpo.store.studies import StudyRecord
from hpo.training.engine import Fault
from hpo.training.simulated import SimulatedEngine
from tests.helpers.oracles import FixedTrialLike
from tests.helpers.studies import mlp, on_sqlite, small_space, trials_of, work

WIDTHS = {"low": 8, "high": 24, "step": 8}
OPTIMIZER = {"name": {"choices": ["sgd", "adam"]}, "lr": 0.01, "adam": {"lr": {"choices": [0.1, 0.01]}}}


def grid_space(**changes: object) -> SearchSpace:
    """(3 + 3 * 3) networks times (sgd, adam at two rates): 36 configurations."""
    return small_space(**{"mlp": {"depth": {"low": 1, "high": 2}, "width": WIDTHS}, "optimizer": OPTIMIZER} | changes)


def test_a_horizon_multiplies_only_the_configurations_that_average() -> None:
    averaged = {"name": {"choices": ["none", "ema"]}, "horizon": {"choices": [0.5, 1.0]}}
    leaves = grid(small_space(mlp={"depth": 1, "width": 8}, optimizer={"name": "sgd", "lr": 0.1}, average=averaged))
    assert leaves == [{"average.name": "none"}] + [{"average.name": "ema", "average.horizon": h} for h in (0.5, 1.0)]


def grid_study(store: Store, space: SearchSpace | None = None, seed: int = 0, **budget: object) -> StudyRecord:
    recipe = StudyRecipe(
        seed=seed, budget=Budget.model_validate(budget), pruner=Pruner(name="none"), sampler=Sampler(name="grid")
    )
    assert studies.create(store, "s", "small", space or grid_space(), recipe, "f" * 64)
    return studies.load_study(store, "s")


def test_the_leaves_of_the_walk_are_all_its_configurations_once() -> None:
    space = grid_space()
    expected = set()
    for depth in (1, 2):
        for widths in itertools.product((8, 16, 24), repeat=depth):
            for optimizer in (("sgd", 0.01), ("adam", 0.1), ("adam", 0.01)):
                expected.add((widths, *optimizer))
    configs = [space.draw(FixedTrialLike(leaf), 0) for leaf in grid(space)]
    found = [(mlp(c).widths, c.optimizer.name, c.optimizer.lr) for c in configs]
    assert len(found) == len(set(found)) == 36 and set(found) == expected


def test_steps_and_shared_draws_are_counted_once() -> None:
    mlp = {"depth": 3, "width": WIDTHS | {"shared": True}, "dropout": {"low": 0.0, "high": 0.3, "step": 0.1}}
    leaves = grid(small_space(mlp=mlp, optimizer={"name": "adam", "lr": {"low": 0.1, "high": 0.1}}))
    assert len(leaves) == 3 * 4**3
    assert {leaf["mlp.1.dropout"] for leaf in leaves} == {0.0, 0.1, 0.2, 0.3}
    assert key_of({"a": 0.1 + 0.2}) == key_of({"a": 0.3}) != key_of({"a": 0.31})


def documents(folder: Path, network: str, lr: str, trials: int) -> tuple[str, str]:
    """Write a space and a recipe with a grid; return their paths."""
    space, recipe = folder / "space.toml", folder / "recipe.toml"
    rest = f'data = "digits"\nepochs = 6\nbatch_size = 32\n[optimizer]\nname = "adam"\nlr = {lr}\n'
    space.write_text(f"{rest}[mlp]\n{network}\n")
    recipe.write_text(f'[budget]\ntrials = {trials}\n[sampler]\nname = "grid"\n[pruner]\nname = "none"\n')
    return str(space), str(recipe)


@pytest.mark.parametrize(
    ("network", "lr", "message"),
    [
        ("depth = 1\nwidth = 8", "{ low = 0.1, high = 0.2 }", r"without continuous ranges, got optimizer.lr. Give it"),
        (
            "depth = 6\nwidth = { low = 8, high = 64, step = 8 }",
            "0.1",
            r"must have at most 20,000 configurations, got more. Take larger steps",
        ),
    ],
)
def test_a_grid_without_end_is_refused_before_anything_is_made(
    tmp_path: Path, network: str, lr: str, message: str
) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    space, recipe = documents(tmp_path, network, lr, 10)
    with pytest.raises(UsageError, match=r"sampler.name: grid .*" + message) as caught:
        open_study(StudyRequest(space=space, study="s", recipe=recipe, storage=url))
    assert len(str(caught.value).splitlines()) == 1
    assert not exists(parse(url))


def test_the_size_is_told_beforehand(tmp_path: Path) -> None:
    space, recipe = documents(tmp_path, "depth = 2\nwidth = { low = 8, high = 48, step = 8 }", "0.1", 10)
    request = StudyRequest(space=space, study="s", recipe=recipe, storage=f"sqlite:///{tmp_path}/a.db")
    text = io.StringIO()
    print_opened(Console(file=text, width=200), open_study(request))
    assert "grid of 36 configurations; the budget of 10 trials ends before: --trials 36 for all\n" in text.getvalue()
    again = open_study(replace(request, limits={"trials": 40}))
    assert again.grid_size == 36 and again.budget.trials == 40
    print_opened(Console(file=text, width=200), again)
    assert text.getvalue().endswith("grid of 36 configurations\n")


def check_all_once(space: SearchSpace, found: list[optuna.trial.FrozenTrial]) -> None:
    keys = [key_of(t.params) for t in found]
    assert len(keys) == len(set(keys)) == len(grid(space))
    for trial in found:
        config = TrialConfig.from_dict(trial.user_attrs["config"], "t")
        assert space.draw(optuna.trial.FixedTrial(trial.params), config.seed) == config


@pytest.mark.slow
@on_sqlite
def test_a_grid_ends_with_its_last_configuration(store: Store, tmp_path: Path) -> None:
    params = {"mlp": {"depth": 1, "width": [16]}, "optimizer": {"name": "sgd"}}
    space = grid_space(baselines=[{"name": "plain", "params": params}])
    study = grid_study(store, space, trials=99)
    over = work(store, study, SimulatedEngine(), tmp_path)
    assert over is not None and over.reason.startswith("every configuration of the grid has been tried; a wider space")
    found = trials_of(store, study)
    assert found[0].user_attrs["baseline"] == "plain"
    check_all_once(space, found)
    assert {t.state.name for t in found} == {"COMPLETE"}
    with Session(store, study, {}) as session:
        again = session.link.stop_reason()
        assert again is not None and again.reason == over.reason, "other processes see it too"
    wider = grid_space(optimizer=OPTIMIZER | {"lr": {"choices": [0.01, 0.001]}})
    change_space(store, "s", "wider", wider)
    studies.update_budget(store, study)
    work(store, studies.load_study(store, "s"), SimulatedEngine(), tmp_path)
    check_all_once(wider, trials_of(store, study))


@on_sqlite
def test_a_budget_may_end_before_the_grid(store: Store, tmp_path: Path) -> None:
    study = grid_study(store, trials=10)
    over = work(store, study, SimulatedEngine(), tmp_path)
    assert over is not None and over.reason == "all 10 trials are finished"
    first = [t.params for t in trials_of(store, study)]
    admin.delete(store, "s")
    study = grid_study(store, trials=10, seed=1)
    work(store, study, SimulatedEngine(), tmp_path)
    assert first != [t.params for t in trials_of(store, study)], "the order follows from the seed"


@pytest.mark.slow
def test_many_workers_never_draw_the_same(store: Store, tmp_path: Path) -> None:
    study = grid_study(store, trials=99)
    overs: list[StopReason | None] = []

    def one(i: int) -> None:
        own = open_store(store.url)
        overs.append(work(own, study, SimulatedEngine(capacity=1 + i % 2), tmp_path / str(i)))
        own.dispose()

    threads = [threading.Thread(target=one, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(overs) == 4 and all(over is not None and "grid" in over.reason for over in overs)
    found = trials_of(store, study)
    check_all_once(study.space, found)
    admin.delete(store, "s")
    study = grid_study(store, trials=99)
    work(store, study, SimulatedEngine(), tmp_path / "alone")
    assert [t.params for t in trials_of(store, study)] == [t.params for t in found], "as one worker alone"


def test_a_claim_whose_draw_is_not_written_yet_is_followed(store: Store) -> None:
    study = grid_study(store, trials=99)
    with Session(store, study, {}) as first, Session(store, study, {}) as second:
        claimed = first.link.transact(
            lambda c: claims.claim(store, c, study.study_id, first.worker_id, count=1, held=set())
        )
        [other] = second.claim(1)  # type: ignore[misc]
        [mine] = first.claim(1)  # type: ignore[misc]
        assert isinstance(claimed, list)
        assert mine.trial_id == claimed[0].trial_id and mine.number == 0 and other.number == 1
    found = trials_of(store, study)
    assert key_of(found[0].params) != key_of(found[1].params)


@on_sqlite
def test_what_failed_is_not_tried_again_what_was_voided_is(store: Store, tmp_path: Path) -> None:
    study = grid_study(store, trials=99, max_failures=99)

    def fault(config: TrialConfig, epoch: int) -> Fault | None:
        return Fault("error", "odd") if config.seed % 4 == 0 and epoch == 2 else None

    over = work(store, study, SimulatedEngine(fault=fault), tmp_path)
    found = trials_of(store, study)
    assert over is not None and "grid" in over.reason and {t.state.name for t in found} == {"COMPLETE", "FAIL"}
    check_all_once(study.space, found)
    done = next(t for t in found if t.state.name == "COMPLETE")
    admin.void(store, "s", done.number, "the label file was wrong")
    studies.update_budget(store, study)
    work(store, study, SimulatedEngine(), tmp_path)
    *_, again = trials_of(store, study)
    assert again.number == 36 and again.params == done.params and again.state.name == "COMPLETE"


OWN = """
from hpo.config import MLP, Adam, TrialConfig

def draw(suggester):
    depth = suggester.suggest_int("depth", 1, 2)
    widths = tuple(suggester.suggest_categorical(f"width{i}", [8, 16]) for i in range(depth))
    lr = suggester.suggest_float("lr", 0.01, 0.1{step})
    return TrialConfig(
        data="", model=MLP(widths, (0.0,) * depth), optimizer=Adam(lr=lr), batch_size=32, epochs=6
    )
"""


@on_sqlite
def test_a_space_in_python_can_be_a_grid_and_be_replaced(store: Store, tmp_path: Path) -> None:
    from hpo.space import load_space

    (tmp_path / "space.toml").write_text('data = "digits"\nepochs = 6\npython = "own.py:draw"\n')
    (tmp_path / "own.py").write_text(OWN.replace("{step}", ""))
    with pytest.raises(UsageError, match="grid needs a space without continuous ranges, got lr"):
        grid(load_space(str(tmp_path / "space.toml"), trust_code=True))
    (tmp_path / "own.py").write_text(OWN.replace("{step}", ", step=0.09"))
    space = load_space(str(tmp_path / "space.toml"), trust_code=True)
    assert len(grid(space)) == (2 + 4) * 2
    study = grid_study(store, space, trials=99)
    work(store, study, SimulatedEngine(), tmp_path)
    check_all_once(space, trials_of(store, study))
    (tmp_path / "own.py").write_text(OWN.replace("{step}", ", step=0.09").replace("[8, 16]", "[8, 16, 24]"))
    wider = load_space(str(tmp_path / "space.toml"), trust_code=True)
    assert len(change_space(store, "s", "wider", wider).kept) == 12
    studies.update_budget(store, study)
    work(store, studies.load_study(store, "s"), SimulatedEngine(), tmp_path)
    check_all_once(wider, trials_of(store, study))
