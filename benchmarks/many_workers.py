"""Many workers on one Postgres: what they get done of what they could, and what holds them up.

    python -m benchmarks.many_workers --storage URL [--workers 16 64 256] [--seconds 2] [-o FILE]

A worker is a process with an engine that only waits: 30 epochs a trial, each of so many seconds, nothing pruned; three
trials for each worker. `--storage` is a Postgres on this machine whose `max_connections` is twice the number of workers
or more. Reported are the share of the time that the workers trained (1 would be no overhead), the CPU of workers and of
the server, how many connections waited for a lock on average and at most, a worker's waits for claims, and whether the
budget was exact. The workers share the machine's cores with the server: on a small one they are what saturates first.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from datetime import date
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from hpo import data
from hpo.artifacts import FolderFiles
from hpo.recipe import Budget, Pruner, load_recipe
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.loop import Loop
from hpo.runner.session import Assignment, Session
from hpo.space import load_space
from hpo.store import studies
from hpo.store.database import schema
from hpo.store.database.connect import Store, open_store
from hpo.store.database.url import parse
from hpo.store.leases.claims import NothingToClaim
from hpo.store.leases.stopping import StopReason
from hpo.store.record import State
from hpo.training.simulated import SimulatedEngine

ROUNDS, SPACE = 3, "ann_digits"
SAMPLE_SECONDS = 0.5


@dataclass(frozen=True)
class Worked:
    """What one worker measured, in seconds."""

    joined: float
    wall: float
    """From its join to the end of the study or of the trials that it could claim."""
    trained: float
    claims: list[float]
    cpu: float


def worker(url: str, name: str, seconds: float, folder: Path, results: "Queue[Worked]") -> None:
    """Work on the study until it is over."""
    began = time.perf_counter()
    store = open_store(parse(url))
    study = studies.load_study(store, name)
    engine = SimulatedEngine(1, seconds)
    claims: list[float] = []
    with Session(store, study, {"process": os.getpid(), "device": "simulated"}) as session:
        joined = time.perf_counter() - began
        plain = session.claim

        def claim(count: int) -> list[Assignment] | NothingToClaim | StopReason:
            start = time.perf_counter()
            answer = plain(count)
            if isinstance(answer, list):
                claims.append(time.perf_counter() - start)
            return answer

        session.claim = claim  # type: ignore[method-assign]
        loop = Loop(session, engine, CheckpointRetention(FolderFiles(folder), study.recipe.checkpoints), idle=0.0)
        loop.run()
    cpu = time.process_time()
    results.put(Worked(joined, time.perf_counter() - began, loop.clock.seconds, claims, cpu))


@dataclass
class Watch:
    """Looks at the server while the workers are at work."""

    store: Store
    over: threading.Event = field(default_factory=threading.Event)
    waiting: list[int] = field(default_factory=list)
    """Connections that waited for a lock, at each look."""
    connections: list[int] = field(default_factory=list)

    def run(self) -> None:
        """Look until `over`."""
        query = sa.text(
            "SELECT count(*) FILTER (WHERE wait_event_type = 'Lock'), count(*) FROM pg_stat_activity"
            " WHERE application_name = 'hpo' AND pid <> pg_backend_pid()"
        )
        while not self.over.wait(SAMPLE_SECONDS):
            with self.store.read() as connection:
                waiting, connections = connection.execute(query).one()
            self.waiting.append(waiting)
            self.connections.append(connections)


def server_cpu(store: Store) -> float:
    """Return the CPU seconds of the server and of all its connections, those that are closed too."""
    with store.read() as connection:
        backend = psutil.Process(connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one())
    postmaster = backend.parent()
    assert postmaster is not None
    own = postmaster.cpu_times()
    living = [child.cpu_times() for child in postmaster.children()]
    ended = own.children_user + own.children_system
    return float(own.user + own.system + ended + sum(each.user + each.system for each in living))


def measured(url: str, count: int, seconds: float) -> dict[str, Any]:
    """Run a study with so many workers."""
    store = open_store(parse(url), create=True)
    space = load_space(SPACE)
    epochs = space.max_epochs
    plan = load_recipe("default").model_copy(
        update={"budget": Budget(trials=ROUNDS * count), "pruner": Pruner(name="threshold", threshold=0.0)}
    )
    name = f"workers-{count}-{int(time.time())}"
    studies.create(store, name, SPACE, space, plan, data.fingerprint(data.info(space.data), space.split))
    study = studies.load_study(store, name)
    context = get_context("fork")
    results: Queue[Worked] = context.Queue()
    watch = Watch(store)
    with tempfile.TemporaryDirectory() as folder:
        store.dispose()  # no connection is shared with the children
        workers = [
            context.Process(target=worker, args=(url, name, seconds, Path(folder), results)) for _ in range(count)
        ]
        before, began = server_cpu(store), time.perf_counter()
        store.dispose()
        for each in workers:
            each.start()
        watcher = threading.Thread(target=watch.run)
        watcher.start()
        worked = [results.get() for _ in workers]
        wall = time.perf_counter() - began
        watch.over.set()
        watcher.join()
        for each in workers:
            each.join()
    with store.read() as connection:
        states = connection.execute(
            sa.select(schema.trials.c.state, sa.func.count())
            .where(schema.trials.c.study_id == study.study_id)
            .group_by(schema.trials.c.state)
        ).all()
    claims = sorted(each for w in worked for each in w.claims)
    return {
        "workers": count,
        "trials": {State(state).name: n for state, n in states},
        "exact": sum(n for _, n in states) == ROUNDS * count,
        "wall_seconds": round(wall, 1),
        "ideal_seconds": round(ROUNDS * epochs * seconds, 1),
        "trained_share": round(statistics.fmean(w.trained / w.wall for w in worked), 3),
        "trials_per_minute": round(60 * ROUNDS * count / wall, 1),
        "reports_per_second": round(epochs * ROUNDS * count / wall, 1),
        "join_seconds": [round(each(w.joined for w in worked), 2) for each in (statistics.median, max)],
        "claim_ms": [round(1000 * statistics.median(claims)), round(1000 * claims[int(0.99 * len(claims))])],
        "waiting_for_a_lock": [round(statistics.fmean(watch.waiting), 2), max(watch.waiting)],
        "connections": [round(statistics.fmean(watch.connections)), max(watch.connections)],
        "worker_cpu_seconds": round(sum(w.cpu for w in worked), 1),
        "server_cpu_seconds": round(server_cpu(store) - before, 1),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--storage", required=True)
    arguments.add_argument("--workers", type=int, nargs="+", default=[16, 64, 256])
    arguments.add_argument("--seconds", type=float, default=2.0, help="of an epoch")
    arguments.add_argument("-o", "--output", type=Path)
    options = arguments.parse_args()
    rows = []
    for count in options.workers:
        rows.append(measured(options.storage, count, options.seconds))
        print(json.dumps(rows[-1]), flush=True)
    report = {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "epoch_seconds": options.seconds,
        "rows": rows,
    }
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
