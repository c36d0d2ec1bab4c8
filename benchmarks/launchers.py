"""What `hpo run --on ray` costs beside `--on local`: the same trials on as many cores, in turns.

    python -m benchmarks.launchers --storage URL [--space ann_digits] [--trials 100] [--pairs 3] [-o FILE]

The store is a Postgres; the cluster is one node on this machine with as many CPUs as workers, started before. Trials
are drawn at random and none is pruned, so all studies train the same configurations. Start-up, from the command to the
first trial, is reported apart from the time from the first trial's start to the last one's end.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date
from pathlib import Path
from typing import Any

import optuna

WORKERS = 2
RECIPE = """
[sampler]
name = "random"

[pruner]
name = "none"
"""


def measured(place: str, options: argparse.Namespace, folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Run a whole study at a place."""
    recipe = folder / "random.toml"
    recipe.write_text(RECIPE)
    name = f"{place}-{time.time():.0f}"
    command = [sys.executable, "-m", "hpo", "run", "--space", options.space, "--study", name, "--recipe", str(recipe)]
    command += ["--trials", str(options.trials), "--seed", "0", "--engine", "solo", "--workers", str(WORKERS)]
    began = time.time()
    subprocess.run([*command, "--on", place], env=environment, check=True, stdout=subprocess.DEVNULL)
    wall = time.time() - began
    url = options.storage.replace("postgresql:", "postgresql+psycopg:")
    trials = optuna.load_study(study_name=name, storage=url).trials
    starts = [t.datetime_start.replace(tzinfo=UTC).timestamp() for t in trials if t.datetime_start]
    ends = [t.datetime_complete.replace(tzinfo=UTC).timestamp() for t in trials if t.datetime_complete]
    assert len(ends) == options.trials
    return {
        "place": place,
        "start_up": round(min(starts) - began, 2),
        "searching": round(max(ends) - min(starts), 2),
        "whole": round(wall, 2),
        "epochs": sum(len(t.intermediate_values) for t in trials),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--storage", required=True)
    arguments.add_argument("--space", default="ann_digits")
    arguments.add_argument("--trials", type=int, default=100)
    arguments.add_argument("--pairs", type=int, default=3)
    arguments.add_argument("-o", "--output", type=Path)
    options = arguments.parse_args()
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": WORKERS, "include_dashboard": False})
    rows = []
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:  # some pictures are still drawn
            folder = Path(temporary)
            environment = {
                **os.environ,
                "HPO_STORAGE": options.storage,
                "HPO_ARTIFACTS": str(folder / "artifacts"),
                "RAY_ADDRESS": cluster.address,
                "RAY_USAGE_STATS_ENABLED": "0",
            }
            for number in range(options.pairs):
                for place in ("local", "ray") if number % 2 == 0 else ("ray", "local"):
                    rows.append(measured(place, options, folder, environment))
                    print(json.dumps(rows[-1]), flush=True)
    finally:
        cluster.shutdown()
    of = {place: [row for row in rows if row["place"] == place] for place in ("local", "ray")}
    report = {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "space": options.space,
        "trials": options.trials,
        "rows": rows,
        "ratio": round(
            statistics.median(b["searching"] / a["searching"] for a, b in zip(of["local"], of["ray"], strict=True)), 4
        ),
        "start_up": {place: statistics.median(row["start_up"] for row in part) for place, part in of.items()},
    }
    print(f"searching on ray / local: {report['ratio']} (promised <= 1.05); start-up {report['start_up']}")
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
