"""Does a confirmation name a winner where there is one, and none where there is none?

    python -m benchmarks.known_gap [--studies 20] [--seeds 5] [--spaces equal better] [-o FILE]

Two spaces, whole studies of each, each with its own seed. In the first, on digits, all configurations are equal: they
differ in a weight decay between 1e-9 and 1e-8. In the second, on Fashion-MNIST, some are better by about one point,
which their learning rate makes; by how much is measured on 20 further trainings of each, on cuts of their own. On
digits, with 287 validation rows, a point is within chance, however many seeds are trained.
"""

import argparse
import json
import platform
import statistics
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from hpo import data
from hpo.artifacts import FolderFiles
from hpo.recipe import Budget, Pruner, Sampler, StudyRecipe
from hpo.results import confirmation
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.worker import work
from hpo.space import SearchSpace
from hpo.store import studies
from hpo.store.database.connect import open_store
from hpo.store.database.url import parse
from hpo.strategy.samplers import derived_seed
from hpo.suggesters import FixedSuggester
from hpo.training.engine import EpochResult
from hpo.training.solo import SoloEngine

BASELINE_LR, BETTER_LR = 3e-4, 4e-4
TRIALS = 8
MEASURED = 20


def searched(better: bool) -> SearchSpace:
    """Return the space in which some are better than the baseline, or all are equal to it."""
    rates: Any = {"choices": [BASELINE_LR, BETTER_LR]} if better else BASELINE_LR
    rate = {"lr": BASELINE_LR} if better else {}
    equal = {"low": 1e-9, "high": 1e-8, "log": True}
    digits = {"data": "digits", "split": {"validation": 0.2}, "epochs": 6, "batch_size": 32}
    return SearchSpace.model_validate(
        {
            **({"data": "fashion_mnist", "epochs": 2, "batch_size": 512} if better else digits),
            "mlp": {"depth": 1, "width": 32},
            "optimizer": {"name": "adamw", "lr": rates, "weight_decay": equal},
            "baselines": [{"name": "the lower rate", "params": {"optimizer": rate | {"weight_decay": 1e-9}}}],
        }
    )


def true_gap(engine: SoloEngine) -> tuple[float, float]:
    """Return by how much the higher rate is better, and the standard error: on the same seeds and cuts in pairs."""
    space, gaps = searched(better=True), []
    for i in range(MEASURED):
        values = []
        for rate in (BETTER_LR, BASELINE_LR):
            draws = {"optimizer.lr": rate, "optimizer.weight_decay": 1e-9}
            config = space.draw(FixedSuggester(draws), derived_seed(0, "gap", i))
            cut = replace(config.split, seed=derived_seed(0, "gap/cut", i))
            engine.admit(0, replace(config, split=cut))
            result: Any = None
            while not (isinstance(result, EpochResult) and result.last):
                result = engine.step()[0]
            engine.evict(0)
            values.append(result.validation_accuracy)
        gaps.append(values[0] - values[1])
    return statistics.fmean(gaps), statistics.stdev(gaps) / MEASURED**0.5


def confirmed(engine: SoloEngine, better: bool, seed: int, seeds: int) -> dict[str, Any]:
    """Search and confirm once; return what was named."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(parse(f"sqlite:///{folder}/studies.db"), create=True)
        space = searched(better)
        recipe = StudyRecipe(
            seed=seed,
            budget=Budget(trials=TRIALS),
            sampler=Sampler(name="random"),
            pruner=Pruner(name="none"),
            duplicates="new_seed",
        )
        info = data.info(space.data)
        studies.create(store, "s", "gap", space, recipe, data.fingerprint(info, space.split))
        study = studies.load_study(store, "s")
        keeper = CheckpointRetention(FolderFiles(Path(folder)), recipe.checkpoints)
        work(store, study, engine, keeper, {})
        work(store, confirmation.prepare(store, study, 5, seeds), engine, keeper, {})
        result = confirmation.evaluate(store, study)
        assert result is not None
        store.dispose()
    is_better = result.winner.config.optimizer.lr == BETTER_LR
    wrong = [
        c for c in result.candidates if c.gap is not None and _is_wrong(c.config.optimizer.lr, c.gap.low, c.gap.high)
    ]
    return {
        "seed": seed,
        "winner_named": result.certain,
        "winner_is_better": is_better,
        "wrong_signs": len(wrong),
        "candidates": len(result.candidates),
        "verdict": result.verdict,
    }


def _is_wrong(rate: float, low: float, high: float) -> bool:
    """Say whether an interval of the gap to the baseline excludes the truth's sign."""
    return high < 0 if rate == BETTER_LR else low > 0 or high < 0


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--studies", type=int, default=20)
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--spaces", nargs="+", choices=("equal", "better"), default=("equal", "better"))
    arguments.add_argument("-o", "--output", type=Path)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    engine = SoloEngine(torch.device("cpu"))
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "studies": options.studies,
        "seeds": options.seeds,
    }
    for name in options.spaces:
        better, rows = name == "better", []
        for seed in range(options.studies):
            rows.append(confirmed(engine, better, seed, options.seeds))
            print(name, json.dumps(rows[-1]), flush=True)
        report[name] = rows
        named = sum(row["winner_named"] for row in rows)
        print(f"{name}: a winner in {named} of {len(rows)}, wrong signs {sum(row['wrong_signs'] for row in rows)}")
    if "better" in options.spaces:
        gap, error = true_gap(engine)
        report["true_gap"], report["true_gap_error"] = round(gap, 5), round(error, 5)
        print(f"the better ones are better by {gap:.4f}, standard error {error:.4f}")
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
