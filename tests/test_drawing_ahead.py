"""Trials drawn while others are trained: as late as can be, none lost, none too many."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpo.artifacts import FolderFiles
from hpo.config import TrialConfig
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.loop import Loop
from hpo.runner.prefetch import SAFETY, Prefetcher
from hpo.runner.session import Assignment, Session
from hpo.store.database.connect import Store
from hpo.store.leases.claims import NothingToClaim
from hpo.store.leases.outbox import WorkerLost
from hpo.store.leases.stopping import StopReason
from hpo.training.simulated import SimulatedEngine, accuracy
from tests.helpers.studies import MakeStudy, on_sqlite, trials_of, work


def nobody(count: int) -> Sequence[Assignment]:
    raise AssertionError


def measured(step: float, draw: float, early: float = 0.0) -> Prefetcher:
    ahead = Prefetcher(nobody)
    ahead.step_seconds, ahead.draw_seconds, ahead.early = step, draw, early
    return ahead


def test_successors_are_drawn_as_late_as_they_can_be() -> None:
    rate = 10 * SAFETY  # draws to a step
    ahead = measured(step=1.0, draw=0.1)
    assert ahead.wanted([20] * 64) == 0
    steps_before = math.ceil(64 / rate)
    assert ahead.wanted([steps_before + 1] * 64) == 0
    assert 1 <= ahead.wanted([steps_before] * 64) <= 2  # what the steps after this one have no time for
    assert ahead.wanted([1] * 64) == 64
    assert ahead.wanted([1, 1, 2, 3, 4, 5]) == 2  # the others' can be drawn when their time comes
    assert measured(1.0, 0.1, early=1.5).wanted([9] * 9) == 2
    assert measured(1.0, 0.0).wanted([1, 2]) == 1  # nothing is known of times yet
    assert ahead.wanted([]) == 0


def test_what_is_drawn_ends_with_the_step() -> None:
    claims: list[int] = []

    def claim(count: int) -> list[Assignment]:
        claims.append(count)
        time.sleep(0.02 * count)
        return [Assignment(len(claims), 0, 0, None, False)] * count  # type: ignore[arg-type]

    ahead = Prefetcher(claim)
    ahead.step_seconds, ahead.draw_seconds = 0.2, 0.02
    ahead.begin([1] * 100)
    time.sleep(0.2)
    start = time.perf_counter()
    ahead.end()
    assert 4 <= len(ahead.ready) == sum(claims) <= 10 and time.perf_counter() - start < 0.1
    ready = len(ahead.ready)
    ahead.begin([1] * ready)  # there are enough
    ahead.end()
    assert len(ahead.ready) == ready


@pytest.mark.parametrize("pruner", ["none", "median"])
def test_a_study_has_exactly_its_trials(store: Store, make_study: MakeStudy, tmp_path: Path, pruner: str) -> None:
    study = make_study(trials=23, pruner=pruner)
    over = work(store, study, SimulatedEngine(5, 0.01, is_async=True), tmp_path)
    assert over is not None and over.reason == "all 23 trials are finished"
    trials = trials_of(store, study)
    assert len(trials) == 23 and {t.state for t in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    for trial in trials:
        config = TrialConfig.from_dict(trial.user_attrs["config"], "trial")
        assert all(v == accuracy(config, e) for e, v in trial.intermediate_values.items())


@pytest.mark.slow
@on_sqlite
def test_what_was_drawn_is_there_when_places_fall_free(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=30)
    engine = SimulatedEngine(5, 0.1, is_async=True)
    with Session(store, study, {"device": "fake"}) as session:
        loop = Loop(session, engine, CheckpointRetention(FolderFiles(tmp_path), study.recipe.checkpoints))
        by_the_loop: list[int] = []
        plain = session.claim

        def claim(count: int) -> list[Assignment] | NothingToClaim | StopReason:
            answer = plain(count)
            by_the_loop.append(len(answer) if isinstance(answer, list) else 0)
            return answer

        session.claim = claim  # type: ignore[method-assign]
        loop.run()
    assert loop.prefetcher is not None and not loop.prefetcher.ready
    assert by_the_loop[0] == 5 and sum(by_the_loop[1:]) <= 6  # of 25; more than none on a busy machine


@pytest.mark.slow
def test_a_worker_that_stops_hands_back_what_it_had_drawn(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(trials=30)
    engine = SimulatedEngine(4, 0.1, is_async=True)
    with Session(store, study, {"device": "fake"}) as session:
        loop = Loop(session, engine, CheckpointRetention(FolderFiles(tmp_path), study.recipe.checkpoints))
        loop.stopping = lambda: bool(loop.prefetcher and len(loop.prefetcher.ready) >= 2)
        assert loop.run() is None
    handed_back = [t for t in trials_of(store, study) if t.state is TrialState.WAITING]
    drawn = [t for t in handed_back if not t.intermediate_values]
    assert len(drawn) >= 2 and all("config" in t.user_attrs for t in drawn)
    assert work(store, study, SimulatedEngine(4), tmp_path) == StopReason("all 30 trials are finished", "--trials 60")
    final = {t.number: t for t in trials_of(store, study)}
    assert len(final) == 30
    for trial in drawn:
        assert final[trial.number].user_attrs["config"] == trial.user_attrs["config"]
        assert final[trial.number].state is TrialState.COMPLETE


def test_while_the_store_is_away_nothing_is_claimed_and_what_is_there_is_trained_on(
    store: Store, make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study(trials=12)
    engine = SimulatedEngine(3, 0.01, is_async=True)
    with Session(store, study, {"device": "fake"}) as session:
        loop = Loop(session, engine, CheckpointRetention(FolderFiles(tmp_path), study.recipe.checkpoints))
        loop.fill()
        plain, away, claims = session.claim, time.monotonic(), []

        def claim(count: int) -> list[Assignment] | NothingToClaim | StopReason:
            claims.append(count)
            return plain(count)

        session.claim = loop.prefetcher.claim = claim  # type: ignore[method-assign, union-attr]
        while len(loop.live) > 0:
            session.link.outbox.away_since = away  # a beat that is answered takes it back
            loop.fill()
            if loop.live:
                loop.advance()
        assert not claims and engine.room() == 3
        session.link.outbox.away_since = None
        assert loop.run() == StopReason("all 12 trials are finished", "--trials 24") and claims
    assert all(len(t.intermediate_values) == 6 for t in trials_of(store, study))


def test_a_worker_that_is_lost_meanwhile_stops() -> None:
    def claim(count: int) -> list[Assignment]:
        raise WorkerLost("gone")

    ahead = Prefetcher(claim)
    ahead.begin([1])
    with pytest.raises(WorkerLost):
        ahead.end()
