"""The report: one page, complete, small, and drawn by a real browser."""

import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from hpo.errors import StudyError
from hpo.results import audit, confirmation
from hpo.results.report import report
from hpo.results.report_pair import report_pair
from hpo.store.database import schema
from hpo.store.database.connect import Store
from hpo.training.engine import Fault
from hpo.training.simulated import SimulatedEngine
from tests.helpers.browser import open_page
from tests.helpers.confirming import BASELINE, NoisyEngine
from tests.helpers.studies import MakeStudy, on_sqlite, work


def faulty(config: object, epoch: int) -> Fault | None:
    return Fault("oom", "as planned") if epoch == 2 and config.seed % 7 == 0 else None  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_report_shows_what_was_found(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    engine = NoisyEngine(lambda config: 0.9 - config.optimizer.lr)
    engine.fault = faulty
    study = make_study(trials=25, space={"epochs": 4, "baselines": [BASELINE]}, pruner="successive_halving")
    work(store, study, engine, tmp_path)
    without = report(store, study, "hpo run --study s")
    assert "Not done: the best may be luck" in without
    work(store, confirmation.prepare(store, study, 3, 3), engine, tmp_path)
    work(store, audit.prepare(store, study, 2), engine, tmp_path)
    page = report(store, study, "hpo run --study s")
    assert len(page) < 5_000_000
    assert "What pruning may have missed" in page and re.search(r"[012] of 2 pruned trials, drawn at random", page)
    assert re.search(r"Trial \d+ is (better than|not distinguishable from|the baseline)", page)
    assert "<td>oom</td>" in page and "optimizer.lr" in page and "logarithmic" in page
    sources = re.findall(r"(?:src|href)=", page[: page.index('id="plotly"')])
    assert sources == [], "nothing is loaded from elsewhere"


@pytest.mark.slow
@on_sqlite
def test_two_studies_side_by_side_show_what_differs(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    engine = NoisyEngine(lambda config: 0.9 - config.optimizer.lr)
    first = make_study(trials=6, space={"epochs": 4, "baselines": [BASELINE]})
    second = make_study("other", trials=8, seed=1, pruner="median", space={"epochs": 4, "batch_size": 64})
    for study in (first, second):
        work(store, study, engine, tmp_path)
    work(store, confirmation.prepare(store, first, 1, 2), engine, tmp_path)
    page = report_pair(store, first, second)
    assert len(page) < 5_000_000 and "<title>s and other</title>" in page
    assert "<tr><th></th><th>s</th><th>other</th></tr>" in page and "Both validate on the same rows." in page
    assert "<tr><td>recipe.pruner.name</td><td>none</td><td>median</td></tr>" in page
    assert "<tr><td>batch_size</td><td>32</td><td>64</td></tr>" in page and "<td>budget.trials</td>" in page
    assert "<td>epochs</td>" not in page, "what is the same is left out"
    assert "s&#x27;s winner trained again" in page and "<td>not confirmed</td>" in page
    with pytest.raises(StudyError, match="two studies are compared, got it twice"):
        report_pair(store, first, first)


@on_sqlite
def test_a_report_of_a_study_that_has_just_begun(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=1)
    assert "No trial is complete yet." in report(store, study, "")
    work(store, study, SimulatedEngine(), tmp_path)
    assert "<td>0</td>" in report(store, study, "")


@pytest.mark.parametrize("column", ["datetime_start", "datetime_complete"])
@on_sqlite
def test_a_trial_without_its_times_is_drawn(store: Store, make_study: MakeStudy, tmp_path: Path, column: str) -> None:
    study = make_study(trials=12)
    work(store, study, SimulatedEngine(), tmp_path)
    with store.write() as connection:
        connection.execute(sa.text(f"UPDATE trials SET {column} = NULL WHERE number = 1"))
    assert "Importances" in report(store, study, "")


def multiply_trials(store: Store, times: int) -> None:
    """Add copies of all trials of a store's only study, until there are so many times as many."""
    with store.write() as connection:
        count = connection.execute(sa.select(sa.func.max(schema.trials.c.trial_id))).scalar_one()
        for table in (schema.trials, *schema.TRIAL_TABLES):
            key = table.primary_key.columns[0].name
            rows = [dict(row) for row in connection.execute(sa.select(table)).mappings()]
            for turn in range(1, times):
                moved = {"trial_id": count * turn, "number": count * turn, key: len(rows) * turn}
                copies = [row | {name: row[name] + by for name, by in moved.items() if name in row} for row in rows]
                connection.execute(sa.insert(table), copies)


@pytest.mark.slow
def test_a_browser_draws_a_thousand_trials(tmp_path: Path) -> None:
    from hpo.recipe import Budget, Pruner, Sampler, StudyRecipe
    from hpo.store import studies
    from hpo.store.database.connect import open_store
    from hpo.store.database.url import parse
    from tests.helpers.studies import small_space

    store = open_store(parse(f"sqlite:///{tmp_path}/s.db"), create=True)
    recipe = StudyRecipe(budget=Budget(trials=100), sampler=Sampler(name="random"), pruner=Pruner(min_epochs=3))
    studies.create(store, "s", "small", small_space(epochs=20), recipe, "f" * 64)
    study = studies.load_study(store, "s")
    work(store, study, SimulatedEngine(capacity=50), tmp_path)
    multiply_trials(store, 10)
    path = tmp_path / "report.html"
    path.write_text(report(store, study, "hpo run --study s"))
    assert path.stat().st_size < 5_000_000
    with open_page() as page:
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-ready=true]")
        for name in ("best", "curves", "slices", "parallel", "time"):
            page.locator(f"#{name}").scroll_into_view_if_needed()
            page.wait_for_selector(f"#{name} .main-svg")
        assert page.locator("#slices .subplot").count() >= 5
        assert "1000" in page.inner_text(".tiles")


@pytest.mark.slow
@on_sqlite
def test_all_figures_are_printed(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=12, space={"epochs": 4})
    work(store, study, SimulatedEngine(), tmp_path)
    path = tmp_path / "report.html"
    path.write_text(report(store, study, "hpo run --study s"))
    with open_page() as page:
        page.set_viewport_size({"width": 900, "height": 300})
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-ready=true]")
        figures = page.locator(".figure").count()
        assert page.locator(".figure .main-svg").count() < figures, "those below the fold wait"
        page.pdf(path=tmp_path / "report.pdf")
        assert page.locator(".figure:has(.main-svg)").count() == figures >= 5
