"""Confirmation: the best of a study trained again on other seeds, and what may be said of them."""

import dataclasses
import math
import random
from pathlib import Path

import pytest
import torch

from hpo import data
from hpo.config import WORST, Metric, TrialConfig
from hpo.config.metrics import BEST
from hpo.errors import StudyError
from hpo.recipe import Budget, Fidelity, Pruner, Sampler, StudyRecipe
from hpo.results import candidates, confirmation, export, retrain, test_evaluation
from hpo.results.provenance import check_provenance
from hpo.store import studies
from hpo.store.database.connect import Store
from hpo.store.studies import StudyRecord
from hpo.training.engine import EpochResult, Fault
from hpo.training.simulated import SimulatedEngine
from hpo.training.solo import SoloEngine
from tests.helpers.confirming import BASELINE, NoisyEngine
from tests.helpers.studies import MakeStudy, on_sqlite, small_space, trials_of, work


def confirmed(
    store: Store, make_study: MakeStudy, folder: Path, engine: NoisyEngine, trials: int = 30, seeds: int = 5
) -> tuple[StudyRecord, candidates.Confirmation]:
    study = make_study(trials=trials, space={"epochs": 2, "baselines": [BASELINE]})
    work(store, study, engine, folder)
    confirming = confirmation.prepare(store, study, 5, seeds)
    work(store, confirming, engine, folder)
    result = confirmation.evaluate(store, study)
    assert result is not None
    return study, result


def test_luck_is_told_from_merit(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    """lr decides, by far more than chance: the winner is better than the baseline, and its luck is seen."""
    engine = NoisyEngine(lambda config: 0.9 - 0.05 * abs(math.log10(config.optimizer.lr) + 2))
    study, result = confirmed(store, make_study, tmp_path, engine)
    winner = result.winner
    assert result.certain and result.verdict.startswith("better than the baseline by 0.0")
    assert result.study == "s-confirm" and result.missing == 0
    assert len(result.candidates) == 6 and {len(c.values) for c in result.candidates} == {5}
    assert [c.mean for c in result.candidates] == sorted((c.mean for c in result.candidates), reverse=True)
    assert winner.gap is not None and winner.gap.low > 0
    assert winner.mean == pytest.approx(engine.top(winner.config), abs=0.02)
    assert winner.searched - winner.luck == pytest.approx(winner.mean)
    # The best of thirty noisy scores is above what fresh seeds give: over all of the best, for one may be unlucky.
    assert sum(c.luck for c in result.candidates if c.baseline is None) > 0
    exported = export.winner(store, study)
    assert exported.provenance["trial"] == winner.number and exported.config.model == winner.config.model
    assert exported.chosen.startswith("the confirmed winner: better than the baseline")
    assert exported.provenance["promised_test_score"][0] < winner.mean < 1


@pytest.mark.slow
@on_sqlite
def test_a_null_space_has_no_winner(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    """Hyperparameters that change nothing: the best of forty looks good, and is not."""
    study, result = confirmed(store, make_study, tmp_path, NoisyEngine(lambda config: 0.8), trials=40)
    assert not result.certain and ("no winner" in result.verdict or "nothing better" in result.verdict)
    assert max(c.searched for c in result.candidates) > 0.81
    assert export.winner(store, study).provenance["better_than_baseline"] is False


@pytest.mark.slow
def test_more_seeds_add_to_what_is_there(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    engine = NoisyEngine(lambda config: 0.8)
    study, before = confirmed(store, make_study, tmp_path, engine, trials=6, seeds=2)
    ran = len(engine.admitted)
    again = confirmation.prepare(store, study, 5, 2)
    work(store, again, engine, tmp_path)
    assert len(engine.admitted) == ran, "nothing was to be done"
    work(store, confirmation.prepare(store, study, 5, 4), engine, tmp_path)
    after = confirmation.evaluate(store, study)
    assert after is not None and {len(c.values) for c in after.candidates} == {4}
    values = {c.number: c.values[:2] for c in after.candidates}
    assert values == {c.number: c.values for c in before.candidates}


def test_a_training_that_fails_is_missing_and_draws_no_other(
    store: Store, make_study: MakeStudy, tmp_path: Path
) -> None:
    engine = NoisyEngine(lambda config: 0.8)
    study = make_study(trials=4, space={"epochs": 2, "baselines": [BASELINE]})
    work(store, study, engine, tmp_path)
    confirming = confirmation.prepare(store, study, 2, 3)
    failing: list[int] = []

    def fault(config: TrialConfig, epoch: int) -> Fault | None:
        if epoch == 1 and (config.seed in failing or not failing):
            failing.append(config.seed)
            return Fault("error", "as planned")
        return None

    engine.fault = fault
    over = work(store, confirming, engine, tmp_path)
    assert over is not None and over.reason.startswith("all trials that were waiting have ended")
    result = confirmation.evaluate(store, study)
    assert result is not None and result.missing == 1
    assert sorted(len(c.values) for c in result.candidates) == [2, 3, 3]


def test_nothing_to_confirm_says_so(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=3)
    with pytest.raises(StudyError, match="has no complete trial yet"):
        confirmation.prepare(store, study, 5, 5)
    work(store, study, SimulatedEngine(), tmp_path)
    confirming = confirmation.prepare(store, study, 1, 2)
    with pytest.raises(StudyError, match="trains trials of another study again"):
        confirmation.prepare(store, confirming, 1, 2)
    assert confirmation.evaluate(store, study) is None


def fidelities(store: Store, study: StudyRecord) -> set[tuple[float, int | None]]:
    configs = [TrialConfig.from_dict(trial.user_attrs["config"], "trial") for trial in trials_of(store, study)]
    return {(config.data_fraction, config.image_size) for config in configs}


@pytest.mark.slow
@on_sqlite
def test_a_search_on_less_is_confirmed_and_exported_on_everything(store: Store, tmp_path: Path) -> None:
    less = Fidelity(data_fraction=0.25, image_size=14)
    recipe = StudyRecipe(budget=Budget(trials=4), pruner=Pruner(name="none"), fidelity=less, objective="macro_f1")
    assert studies.create(store, "cheap", "small", small_space(epochs=2), recipe, "f" * 64)
    study = studies.load_study(store, "cheap")
    engine = NoisyEngine(lambda config: 0.8)
    work(store, study, engine, tmp_path)
    assert fidelities(store, study) == {(0.25, 14)}
    confirming = confirmation.prepare(store, study, 2, 2)
    work(store, confirming, engine, tmp_path)
    assert fidelities(store, confirming) == {(1.0, None)}
    exported = export.winner(store, study)
    assert (exported.config.data_fraction, exported.config.image_size) == (1.0, None)
    assert exported.provenance["searched_at"] == {"data_fraction": 0.25, "image_size": 14}
    result = confirmation.evaluate(store, study)
    assert result is not None and result.winner.promise is None, "the engine does not say how sure its scores are"
    assert "promised_test_score" not in exported.provenance
    assert "fidelity" not in export.to_toml(exported)


@pytest.mark.slow
@on_sqlite
@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1", "neg_log_loss"])
def test_scores_of_every_metric_are_promised(metric: Metric, store: Store, tmp_path: Path) -> None:
    recipe = StudyRecipe(budget=Budget(trials=2), sampler=Sampler(name="random"), objective=metric)
    space, digits = small_space(epochs=4), data.info("digits")
    assert studies.create(store, "s", "small", space, recipe, data.fingerprint(digits, space.split))
    study = studies.load_study(store, "s")
    work(store, study, SoloEngine(torch.device("cpu")), tmp_path)
    work(store, confirmation.prepare(store, study, 2, 3), SoloEngine(torch.device("cpu")), tmp_path)
    result = confirmation.evaluate(store, study)
    assert result is not None
    for candidate in result.candidates:
        promise = candidate.promise
        assert promise is not None and WORST[metric] <= promise.low < candidate.mean < promise.high <= BEST[metric]
        assert promise.half > candidate.interval.half / 3 and promise.half > 0.005, "rows and training both count"
    exported = export.winner(store, study)
    parts = retrain.load_data(exported.config, None)
    run = retrain.retrain(exported.config, parts, torch.device("cpu"), tmp_path)
    _, metrics = test_evaluation.evaluate_on_test([run], check_provenance(exported.provenance, "provenance").promise)
    assert metrics["metric"] == metric and metrics["as_promised"], "kept on this seed"
    low, high = metrics["promised_test_score"]
    assert low <= metrics["test_score"] <= high
    assert metrics["test_score"] == (-metrics["test_loss"] if metric == "neg_log_loss" else metrics[f"test_{metric}"])


@on_sqlite
def test_every_time_other_rows_are_validated_on_the_same_for_all(
    store: Store, make_study: MakeStudy, tmp_path: Path
) -> None:
    study, result = confirmed(store, make_study, tmp_path, NoisyEngine(lambda config: 0.8), trials=6, seeds=3)
    assert result.fresh_cuts and result.test_like_training
    cuts: dict[int, set[int]] = {}
    confirming = studies.load_study(store, result.study)
    for trial in trials_of(store, confirming):
        config = TrialConfig.from_dict(trial.user_attrs["config"], "trial")
        assert config.split.validation == study.space.split.validation
        cuts.setdefault(trial.user_attrs["confirms"]["repeat"], set()).add(config.split.seed)
    assert [len(seeds) for seeds in cuts.values()] == [1, 1, 1], "comparisons are paired by cut"
    assert len(set.union(*cuts.values()) | {study.space.split.seed}) == 4


@pytest.mark.slow
@on_sqlite
def test_a_confirmation_keeps_to_the_rows_that_it_began_with(
    store: Store, make_study: MakeStudy, tmp_path: Path
) -> None:
    engine = NoisyEngine(lambda config: 0.8)
    study = make_study(trials=4, space={"epochs": 2, "baselines": [BASELINE]})
    work(store, study, engine, tmp_path)
    work(store, confirmation.prepare(store, study, 2, 2, same_cut=True), engine, tmp_path)
    work(store, confirmation.prepare(store, study, 2, 3), engine, tmp_path)
    result = confirmation.evaluate(store, study)
    assert result is not None and not result.fresh_cuts
    other = make_study(name="other", trials=4, space={"epochs": 2, "baselines": [BASELINE]})
    work(store, other, engine, tmp_path)
    confirmation.prepare(store, other, 2, 2)
    with pytest.raises(StudyError, match="has trainings on other cuts than the study's own"):
        confirmation.prepare(store, other, 2, 3, same_cut=True)


class RowsOfUnequalEase(NoisyEngine):
    """Some cuts have easy validation rows, for every configuration."""

    def step(self) -> dict[int, EpochResult | Fault]:
        outcomes = super().step()
        for key, outcome in outcomes.items():
            if isinstance(outcome, EpochResult):
                ease = random.Random(self.trials[key].config.split.seed).gauss(0, 0.02)
                accuracy = outcome.validation_accuracy + ease
                outcomes[key] = dataclasses.replace(outcome, validation_accuracy=accuracy)
        return outcomes


@pytest.mark.slow
@on_sqlite
def test_a_winner_is_found_though_the_rows_differ_more_than_the_candidates(
    store: Store, make_study: MakeStudy, tmp_path: Path
) -> None:
    engine = RowsOfUnequalEase(lambda config: 0.85 + 0.03 * (config.optimizer.lr > 0.002), spread=0.003)
    _, result = confirmed(store, make_study, tmp_path, engine)
    assert result.certain and result.winner.gap is not None and result.winner.gap.half < 0.01
    assert result.winner.interval.half > 0.01, "the mean itself is as uncertain as the rows"
