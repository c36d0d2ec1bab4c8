"""What a study of 10,000 trials with 20 reports each costs, beside plain Optuna on the same database.

    python -m benchmarks.store [--trials 10000] [--storage URL] [--repeats 9] [--without-optuna]

Every figure is the median over the repeats of what one trial or one command pays: `join` is a worker's start
(connect and load the study), `claim` the transaction that takes a trial, `draw` the sampler's parameters
with what is written of them, `report` one epoch's value written to the store, `prune` the decision at a rung,
`show` the whole command `hpo studies show`; `memory` is the most that a worker's process has held once it has joined
and drawn a trial, without torch, which brings 0.3 GB and more. The study lives in a new SQLite file, or in the Postgres
of --storage.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa

from hpo.config import TrialConfig
from hpo.recipe import Budget, load_recipe
from hpo.runner.session import Session
from hpo.space import SearchSpace, load_space
from hpo.store import studies
from hpo.store.database import schema
from hpo.store.database.connect import Store, open_store
from hpo.store.database.url import parse
from hpo.store.record import State
from hpo.store.studies import StudyRecord

EPOCHS, RUNGS = 20, (3, 9)
PROMISED_MS = {"join": 3000, "claim": 20, "draw": 250, "report": 20, "prune": 20, "show": 1000}


def fill(store: Store, study: StudyRecord, space: SearchSpace, count: int) -> None:
    """Write finished trials as many workers would have left them: a third complete, the others pruned."""
    chance = random.Random(0)
    oracle = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    tables: dict[sa.Table, list[dict[str, Any]]] = {
        table: []
        for table in (
            schema.trials,
            schema.trial_params,
            schema.trial_values,
            schema.trial_intermediate_values,
            schema.trial_system_attributes,
            schema.trial_user_attributes,
        )
    }
    with store.write() as connection:
        first = (connection.execute(sa.select(sa.func.max(schema.trials.c.trial_id))).scalar() or 0) + 1
        offset = connection.execute(
            sa.select(sa.func.count()).where(schema.trials.c.study_id == study.study_id)
        ).scalar_one()
        for i in range(count):
            asked, trial_id = oracle.ask(), first + i
            config = space.draw(asked, seed=i)
            top = chance.uniform(0.6, 0.91)
            curve = [top * (1 - 0.5 ** (epoch / 2)) + chance.gauss(0, 0.003) for epoch in range(1, EPOCHS + 1)]
            state = State.COMPLETE if i % 3 == 0 else State.PRUNED
            moment = datetime(2026, 1, 1) + timedelta(seconds=10 * i)
            tables[schema.trials].append(
                {
                    "trial_id": trial_id,
                    "number": offset + i,
                    "study_id": study.study_id,
                    "state": state,
                    "datetime_start": moment,
                    "datetime_complete": moment + timedelta(seconds=10),
                }
            )
            for name, distribution in asked.distributions.items():
                tables[schema.trial_params].append(
                    {
                        "trial_id": trial_id,
                        "param_name": name,
                        "param_value": distribution.to_internal_repr(asked.params[name]),
                        "distribution_json": optuna.distributions.distribution_to_json(distribution),
                    }
                )
            tables[schema.trial_values].append(
                {"trial_id": trial_id, "objective": 0, "value": curve[-1], "value_type": "FINITE"}
            )
            for epoch, value in enumerate(curve, start=1):
                tables[schema.trial_intermediate_values].append(
                    {
                        "trial_id": trial_id,
                        "step": epoch,
                        "intermediate_value": value,
                        "intermediate_value_type": "FINITE",
                    }
                )
            for rung, epoch in enumerate(RUNGS):
                tables[schema.trial_system_attributes].append(
                    {"trial_id": trial_id, "key": f"completed_rung_{rung}", "value_json": json.dumps(curve[epoch - 1])}
                )
            attrs = {"config": config.to_dict(), "epochs": EPOCHS, "seconds": 10.0, "parameters": 100000}
            for key, entry in attrs.items():
                tables[schema.trial_user_attributes].append(
                    {"trial_id": trial_id, "key": key, "value_json": json.dumps(entry)}
                )
        for table, rows in tables.items():
            for start in range(0, len(rows), 20000):
                connection.execute(sa.insert(table), rows[start : start + 20000])
        if not store.is_sqlite:
            connection.execute(sa.text(f"SELECT setval('trials_trial_id_seq', {first + count})"))


def timed(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - start)


def memory_of_worker(url: str, name: str) -> float:
    """Return the greatest memory of this process, in MB, once it has joined a study and drawn a trial. Linux only."""
    store = open_store(parse(url))
    with Session(store, studies.load_study(store, name), {}) as session:
        [assignment] = session.claim(1)  # type: ignore[misc]
        session.trials.prune(assignment.trial_id)
    # Not getrusage, whose figure begins with that of the process that started this one.
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def report_value(session: Session, trial_id: int, epoch: int) -> None:
    """Report a value and wait until it is in the store."""
    session.trials.report(trial_id, epoch, 0.9)
    session.link.outbox.flush()


def ours(store: Store, study: StudyRecord, repeats: int, environment: dict[str, str]) -> dict[str, float]:
    """Return milliseconds of each step of a worker of ours."""
    times: dict[str, list[float]] = {name: [] for name in PROMISED_MS}
    for _ in range(max(3, repeats // 3)):
        fresh = open_store(store.url)
        session = Session(fresh, study, {})
        times["join"].append(timed(session.__enter__))
        session.__exit__()
        fresh.dispose()
    with Session(store, study, {}) as session:
        search = session.search
        draws: list[float] = []
        drawn = search.draw

        def draw(trial_id: int, number: int) -> TrialConfig:
            start = time.perf_counter()
            config = drawn(trial_id, number)
            draws.append(1000 * (time.perf_counter() - start))
            return config

        search.draw = draw  # type: ignore[method-assign]
        for _ in range(repeats):
            start = time.perf_counter()
            [assignment] = session.claim(1)  # type: ignore[misc]
            whole = 1000 * (time.perf_counter() - start)
            flush = timed(session.link.outbox.flush)
            times["draw"].append(draws[-1] + flush)
            times["claim"].append(whole - draws[-1])
            key = assignment.trial_id
            for epoch in RUNGS:
                times["report"].append(timed(partial(report_value, session, key, epoch)))
                times["prune"].append(timed(lambda: session.trials.should_prune(key)))  # noqa: B023
            session.trials.prune(key)
    command = [sys.executable, "-m", "hpo", "studies", "show", study.name]
    for _ in range(max(3, repeats // 3)):
        times["show"].append(
            timed(lambda: subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL))
        )
    return {name: statistics.median(values) for name, values in times.items()}


def plain_optuna(store: Store, study: StudyRecord, space: SearchSpace, repeats: int) -> dict[str, float]:
    """Return the same of Optuna's own storage, sampler and pruner."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    times: dict[str, list[float]] = {name: [] for name in ("join", "claim", "draw", "report", "prune")}
    url = store.url.render_as_string(hide_password=False)

    def load() -> optuna.Study:
        loaded = optuna.load_study(
            study_name=study.name,
            storage=url,
            sampler=optuna.samplers.TPESampler(seed=0),
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=3, reduction_factor=3),
        )
        loaded.get_trials(deepcopy=False)
        return loaded

    start = time.perf_counter()
    theirs = load()
    times["join"].append(1000 * (time.perf_counter() - start))
    for _ in range(repeats):
        start = time.perf_counter()
        trial = theirs.ask()
        times["claim"].append(1000 * (time.perf_counter() - start))
        times["draw"].append(timed(lambda: space.draw(trial, 0)))  # noqa: B023
        for epoch in RUNGS:
            times["report"].append(timed(lambda: trial.report(0.9, epoch)))  # noqa: B023
            times["prune"].append(timed(trial.should_prune))
        theirs.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--trials", type=int, default=10_000)
    arguments.add_argument("--repeats", type=int, default=9)
    arguments.add_argument("--storage", help="[default: a new SQLite file]")
    arguments.add_argument("--without-optuna", action="store_true")
    arguments.add_argument("-o", "--output", type=Path)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = options.storage or f"sqlite:///{folder}/studies.db"
        store = open_store(parse(url), create=True)
        space, name = load_space("ann_fashion"), f"store-{int(time.time())}"
        recipe = load_recipe("default").model_copy(update={"budget": Budget(trials=10**7)})
        studies.create(store, name, "ann_fashion", space.model_copy(update={"baselines": []}), recipe, "f" * 64)
        study = studies.load_study(store, name)
        fill(store, study, space, options.trials)
        with get_context("spawn").Pool(1) as pool:
            memory = pool.apply(memory_of_worker, (url, name))
        found = ours(store, study, options.repeats, {**os.environ, "HPO_STORAGE": url})
        theirs = {} if options.without_optuna else plain_optuna(store, study, space, options.repeats)
    report = {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "optuna": optuna.__version__,
        "store": store.url.get_backend_name(),
        "trials": options.trials,
        "milliseconds": {k: round(v, 1) for k, v in found.items()},
        "memory_mb": round(memory),
        "optuna_milliseconds": {k: round(v, 1) for k, v in theirs.items()},
    }
    for step, promised in PROMISED_MS.items():
        beside = f", plain Optuna {theirs[step]:8.1f} ms" if step in theirs else ""
        missed = "" if found[step] < promised else "  MISSED"
        print(f"{step:7} {found[step]:8.1f} ms (promised < {promised} ms){beside}{missed}")
    print(f"memory  {memory:8.0f} MB")
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
