"""Whole studies in a folder that goes with them, and files of rows, one row for each study, that a cut run goes on."""

import argparse
import json
import platform
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from hpo import data, files, recipe
from hpo.artifacts import FolderFiles
from hpo.config import Metric
from hpo.recipe import Budget
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.worker import make_engine, work
from hpo.space import SearchSpace
from hpo.store import studies
from hpo.store.database.connect import Store, open_store
from hpo.store.database.url import parse
from hpo.store.studies import StudyRecord

Row = dict[str, Any]


class WholeStudy:
    """A study of the default recipe in a folder, trained by one worker."""

    def __init__(self, space: SearchSpace, trials: int, seed: int, folder: Path, metric: Metric = "accuracy") -> None:
        self._folder, self._engine = folder, make_engine("auto", "cpu")
        self.store: Store = open_store(parse(f"sqlite:///{folder}/studies.db"), create=True)
        plan = recipe.load_recipe("default")
        plan = plan.model_copy(update={"budget": Budget(trials=trials), "seed": seed, "objective": metric})
        fingerprint = data.fingerprint(data.info(space.data), space.split)
        studies.create(self.store, "s", "s", space, plan, fingerprint)
        self.study = studies.load_study(self.store, "s")
        self.run(self.study)

    def run(self, study: StudyRecord) -> None:
        """Run a study to the end of its budget: this one, or one that is linked to it."""
        keeper = CheckpointRetention(FolderFiles(self._folder / study.name), study.recipe.checkpoints)
        work(self.store, study, self._engine, keeper, {})


def measure(
    arguments: argparse.ArgumentParser,
    setting_type: type[Any],
    whole_study: Callable[[tuple[Any, int]], Row],
    described: Callable[[Row], str],
    summary: Callable[[Sequence[Row]], Row],
) -> None:
    """Run whole studies as the command line says; write the output anew after each, and show the summary.

    The options are the fields of the setting, a dataclass. Studies that the output has are not run again.
    """
    arguments.add_argument("--studies", type=int, default=20)
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("-o", "--output", type=Path)
    options = arguments.parse_args()
    given = {field.name: getattr(options, field.name) for field in fields(setting_type)}
    setting, output = setting_type(**given), options.output
    settings = given | {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
    rows = _earlier_rows(output, settings)
    jobs = [(setting, seed) for seed in range(options.studies) if seed not in {row["seed"] for row in rows}]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for row in pool.map(whole_study, jobs):
            rows.append(row)
            print(described(row), flush=True)
            if output is not None:
                report = {"date": date.today().isoformat(), **settings, **summary(rows), "rows": rows}
                files.write(output, json.dumps(report, indent=2) + "\n")
    print(json.dumps(summary(rows), indent=2))


def mean(values: Sequence[float]) -> float:
    """Return a mean to show."""
    return round(statistics.fmean(values), 5)


def _earlier_rows(output: Path | None, settings: Row) -> list[Row]:
    """Return the rows that a run with the same settings has written."""
    if output is None or not output.exists():
        return []
    report = json.loads(output.read_text())
    if not settings.items() <= report.items():
        raise SystemExit(f"{output}: must be of the same settings, got others. Choose another -o.")
    rows: list[Row] = report["rows"]
    return rows
