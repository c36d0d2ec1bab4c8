"""Optuna's private names: which of those that hpo uses the installed version still has."""

import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage

import hpo
from hpo import optuna_compat

NAMES: dict[str, tuple[Callable[[], Any], str]] = {
    "the id of a trial": (lambda: optuna.trial.create_trial(value=0.0), "_trial_id"),
    "the trials that a study keeps during a draw": (optuna.create_study, "_thread_local.cached_all_trials"),
    "the generator of TPE": (TPESampler, "_rng.rng.seed"),
    "the generator of TPE's first trials": (TPESampler, "_random_sampler._rng.rng.seed"),
    "the generator of random search": (RandomSampler, "_rng.rng.seed"),
    "the generator of the Gaussian process": (GPSampler, "_rng.rng.seed"),
    "the fitted Gaussian processes": (GPSampler, "_gprs_cache_list"),
    "the fitted Gaussian processes of constraints": (GPSampler, "_constraints_gprs_cache_list"),
    "the generator of NSGA-II": (NSGAIISampler, "_rng.rng.seed"),
    "the generator of NSGA-II's first trials": (NSGAIISampler, "_random_sampler._rng.rng.seed"),
    "the next point of a quasi-random sequence": (lambda: QMCSampler, "_find_sample_id"),
    "the reading of trials": (lambda: RDBStorage, "_get_trials"),
}


@pytest.mark.parametrize("purpose", NAMES)
def test_a_private_name_is_there(purpose: str) -> None:
    make, path = NAMES[purpose]
    value = make()
    for name in path.split("."):
        assert hasattr(value, name), f"Optuna {version('optuna')} has no {name} any more: {purpose} ({path})"
        value = getattr(value, name)


def test_private_names_are_used_in_one_module_alone() -> None:
    private = re.compile(r"from optuna\S*\._|import optuna\S*\._|\._(trial_id|thread_local|rng|storage|study_id)\b")
    folder = Path(hpo.__file__).parent
    users = [str(path.relative_to(folder)) for path in folder.rglob("*.py") if private.search(path.read_text())]
    assert users == ["optuna_compat.py"]


@pytest.mark.parametrize("make", [TPESampler, RandomSampler, NSGAIISampler])
def test_a_seeded_sampler_draws_the_same_again(make: Callable[[], BaseSampler]) -> None:
    sampler = make()
    study = optuna.create_study(sampler=sampler)
    space = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}
    draws = []
    for seed in (3, 3, 4):
        optuna_compat.seed_sampler(sampler, seed)
        trial = study.ask()
        draws.append(sampler.sample_independent(study, study.get_trials()[trial.number], "x", space["x"]))
    assert draws[0] == draws[1] != draws[2]


def test_points_of_a_sequence_follow_from_the_number_alone() -> None:
    space: dict[str, Any] = {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in ("x", "y")}

    def point(sampler: optuna_compat.NumberedQMCSampler, number: int) -> list[float]:
        study = optuna.create_study()
        sampler.point = number
        study.ask()
        drawn = sampler.sample_relative(study, study.get_trials()[0], space)
        return [drawn[name] for name in space]

    one, other = (optuna_compat.NumberedQMCSampler(scramble=True, seed=1) for _ in range(2))
    forwards = [point(one, number) for number in range(4)]
    backwards = [point(other, number) for number in reversed(range(4))]
    assert forwards == backwards[::-1] and len(np.unique(forwards, axis=0)) == 4


def test_importing_the_search_changes_no_logging_of_optuna() -> None:
    code = (
        "import optuna, warnings; before = optuna.logging.get_verbosity(), len(warnings.filters)\n"
        "import hpo.runner.worker, hpo.strategy.study_search, hpo.dashboard.storage\n"
        "print(before[0] == optuna.logging.get_verbosity())\n"
        "print(any(f[2] is optuna.exceptions.ExperimentalWarning for f in warnings.filters))\n"
        "hpo.optuna_compat.silence(); print(optuna.logging.get_verbosity() == optuna.logging.ERROR)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "False", "True"]
