"""What watching costs the search: trials per minute of real workers, with and without a dashboard that is looked at.

    python -m benchmarks.watching [--workers 4] [--trials 60] [--repeats 3] [-o FILE]

Workers train `ann_digits` on a SQLite file. The dashboard runs in a process of its own and is asked for the study every
ten seconds, as an open page does. A second part asks for a study of 10,000 trials (`--large`), which comes in parts;
with `--only-large` that part alone.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from datetime import date
from pathlib import Path
from typing import Any

import optuna

from benchmarks.store import fill
from hpo.dashboard.paging import MOST_AT_ONCE
from hpo.recipe import Budget, StudyRecipe
from hpo.space import load_space
from hpo.store import studies
from hpo.store.database.connect import open_store
from hpo.store.database.url import parse

POLL_SECONDS = 10.0


def start_dashboard(environment: dict[str, str]) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "hpo", "dashboard", "--port", "0", "--read-only"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    return process, process.stderr.readline().partition("is shown at ")[2].split("/dashboard")[0]


def ask(address: str, after: int = 0) -> float:
    """Ask for the study's trials from a number on: an open page asks only for those that it does not know."""
    start = time.perf_counter()
    request = urllib.request.Request(f"{address}/api/studies/1?after={after}", headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        answer.read()
    return time.perf_counter() - start


def study_seconds(workers: int, trials: int, watched: bool) -> float:
    """Return how long a study takes, from its first trial to its last."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"HPO_STORAGE": f"sqlite:///{folder}/studies.db"}
        recipe = Path(folder) / "plain.toml"
        recipe.write_text('[sampler]\nname = "random"\n[pruner]\nname = "none"\n')
        make = ["init", "--space", "ann_digits", "--recipe", str(recipe), "--trials", str(trials)]
        subprocess.run([sys.executable, "-m", "hpo", *make], env=environment, check=True, capture_output=True)
        over, looker, dashboard = threading.Event(), None, None
        if watched:
            dashboard, address = start_dashboard(environment)

            def look() -> None:
                while not over.wait(POLL_SECONDS):
                    ask(address)

            looker = threading.Thread(target=look)
            looker.start()
        run = ["run", "--study", "ann_digits", "--workers", str(workers), "--device", "cpu"]
        subprocess.run([sys.executable, "-m", "hpo", *run], env=environment, check=True, capture_output=True)
        over.set()
        if looker is not None and dashboard is not None:
            looker.join()
            dashboard.terminate()
            dashboard.wait()
        found = optuna.load_study(study_name="ann_digits", storage=environment["HPO_STORAGE"]).trials
        starts = [t.datetime_start for t in found if t.datetime_start]
        ends = [t.datetime_complete for t in found if t.datetime_complete]
        return (max(ends) - min(starts)).total_seconds()


def large_study(trials: int) -> dict[str, float]:
    """Return the seconds of the first look at a large study, of a look for its next trials, and of later looks."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/studies.db"
        store = open_store(parse(url), create=True)
        space = load_space("ann_fashion").model_copy(update={"baselines": []})  # those would wait before all others
        studies.create(store, "large", "ann_fashion", space, StudyRecipe(budget=Budget(trials=trials * 2)), "f" * 64)
        fill(store, studies.load_study(store, "large"), space, trials)
        dashboard, address = start_dashboard(os.environ | {"HPO_STORAGE": url})
        first, following, *later = [ask(address), ask(address, MOST_AT_ONCE), *(ask(address, trials) for _ in range(5))]
        dashboard.terminate()
        dashboard.wait()
    return {"first": round(first, 3), "next": round(following, 3), "refresh": round(statistics.median(later), 3)}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--workers", type=int, default=4)
    arguments.add_argument("--trials", type=int, default=60)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--large", type=int, default=10_000)
    arguments.add_argument("--only-large", action="store_true")
    arguments.add_argument("-o", "--output", type=Path)
    options = arguments.parse_args()
    if options.only_large:
        print(f"{options.large:,} trials: {large_study(options.large)} s")
        return
    alone, watched = [], []
    for _ in range(options.repeats):
        alone.append(study_seconds(options.workers, options.trials, watched=False))
        watched.append(study_seconds(options.workers, options.trials, watched=True))
    kept = statistics.median(alone) / statistics.median(watched)
    large = large_study(options.large)
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "workers": options.workers,
        "trials": options.trials,
        "seconds_alone": alone,
        "seconds_watched": watched,
        "throughput_kept": round(kept, 3),
        "large_study": {"trials": options.large, "seconds": large},
    }
    print(f"throughput kept with the dashboard open: {100 * kept:.1f} % (promised >= 95 %)")
    first, refresh = large["first"], large["refresh"]
    print(f"{options.large:,} trials: first look {first:.2f} s, refresh {refresh:.2f} s (promised < 1 s)")
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
