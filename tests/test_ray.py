"""A study on a real Ray cluster of three nodes: the same curves, an exact budget, nodes and the driver that die."""

import os
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import psutil
import pytest
import torch

from hpo import data
from hpo.config import TrialConfig
from hpo.store.database.connect import Store, open_store
from hpo.store.database.url import parse
from hpo.store.record import TrialAttributes
from hpo.training.engine import EpochResult
from hpo.training.solo import SoloEngine
from tests.helpers.cluster import NODE, moto_bucket, ray_cluster, workers_of
from tests.helpers.cluster import until as until_within
from tests.helpers.command import hpo, start
from tests.helpers.studies import new_database

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1800)]

TRIALS = int(os.environ.get("HPO_RAY_TRIALS", "100"))
"""So many that the study is not over when the driver is killed."""


until = partial(until_within, seconds=500)


@pytest.fixture
def place(postgres: str, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A cluster of three nodes, an empty store, and artifacts in S3; all in `environment`."""
    url = new_database(postgres)
    with moto_bucket("hpo") as credentials:
        os.environ.update(credentials)  # of the nodes: credentials do not travel
        with ray_cluster() as cluster:
            environment = {
                **os.environ,
                "HPO_STORAGE": url,
                "HPO_ARTIFACTS": "s3://hpo/studies",
                "RAY_ADDRESS": cluster.address,
                "COLUMNS": "200",
            }
            yield SimpleNamespace(cluster=cluster, url=url, environment=environment, folder=tmp_path)
        for name in credentials:
            del os.environ[name]


def finished(trials: list[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
    return [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]


def trials_of(url: str) -> list[optuna.trial.FrozenTrial]:
    try:
        return optuna.load_study(study_name="d", storage=url.replace("postgresql:", "postgresql+psycopg:")).trials
    except (KeyError, RuntimeError):  # it is being made
        return []


def kill_node(cluster: Any, store: Store) -> int:
    """Kill a node that is at work, with all that runs on it, as a power cut does; return how many workers it had."""
    places = [worker["place"] for worker in workers_of(store)]
    node = next(n for n in cluster.worker_nodes if any(place.endswith(n.node_id[:8]) for place in places))
    lost = [worker for worker in workers_of(store) if worker["place"].endswith(node.node_id[:8])]
    for worker in lost:
        os.kill(worker["process"], signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)
    return len(lost)


def test_nodes_and_driver_die_and_the_study_is_what_it_would_have_been(place: SimpleNamespace) -> None:
    command = ["run", "--space", "ann_digits", "--study", "d", "--on", "ray", "--engine", "solo", "--seed", "1"]
    command += ["--trials", str(TRIALS)]
    driver = start(*command, folder=place.folder, environment=place.environment)
    until(lambda: len(finished(trials_of(place.url))) >= TRIALS // 6 or driver.poll() is not None)
    assert driver.poll() is None, driver.stderr
    store = open_store(parse(place.url))
    until(lambda: len({worker["place"] for worker in workers_of(store)}) == 3)
    assert {worker["asked"] for worker in workers_of(store)} == {3}
    assert kill_node(place.cluster, store) == 1
    # Its worker, a moment before the node: whichever Ray notices first.
    until(lambda: re.search("a worker (was lost|died)", driver.stderr) or driver.poll() is not None)
    assert driver.poll() is None, driver.stderr
    place.cluster.add_node(**NODE)
    until(lambda: len({worker["place"] for worker in workers_of(store)}) == 3 or driver.poll() is not None)
    processes = {worker["process"] for worker in workers_of(store)}
    driver.kill()
    driver.wait()
    assert len(finished(trials_of(place.url))) < TRIALS
    # They stop with their actors, which end with the driver: some have no time to say so in the store.
    until(lambda: not any(map(psutil.pid_exists, processes)))

    done = hpo(*command, folder=place.folder, environment=place.environment)
    assert f"all {TRIALS} trials are finished" in done.stderr
    trials = trials_of(place.url)
    assert len(finished(trials)) == TRIALS
    continued = {TrialAttributes.of(trial).continues for trial in trials} - {None}
    assert continued == {trial.number for trial in trials if trial.state.name == "FAIL"}
    for trial in [t for t in finished(trials) if t.state.name == "COMPLETE"][:4]:
        assert trial.intermediate_values == curve_here(TrialConfig.from_dict(trial.user_attrs["config"], "config"))
    store.dispose()
    logs = hpo("logs", "d", folder=place.folder, environment=place.environment).stdout
    assert "done: all" in logs


def curve_here(config: TrialConfig) -> dict[int, float]:
    """Train a configuration in this process, and return its curve."""
    engine = SoloEngine(torch.device("cpu"))
    data.fetch(data.info(config.data))
    engine.admit(0, config, None)
    curve = {}
    while engine.room() == 0:
        [result] = engine.step().values()
        assert isinstance(result, EpochResult)
        curve[result.epoch] = result.score(config.metric)
        if result.last:
            engine.evict(0)
    return curve
