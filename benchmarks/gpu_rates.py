"""Parts of `benchmarks.gpu` that train: agreement, trials per hour of engines and of loops by hand, whole studies."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import optuna
import tomlkit
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.packing_cases import Case, configs
from hpo import data
from hpo.config import MLP, Adam, Split, TrialConfig
from hpo.models import build_model, parameter_count
from hpo.recipe import EngineName
from hpo.runner.worker import make_engine
from hpo.space import SearchSpace
from hpo.training.dataset import ResidentData
from hpo.training.devices import choose_device, describe, use_one_thread
from hpo.training.engine import EpochResult
from hpo.training.optimizers import build_optimizer
from hpo.training.packed.compute import fused
from hpo.training.solo import SoloEngine

if TYPE_CHECKING:
    from benchmarks.gpu_parts import Part

SPACE: dict[str, Any] = {
    "data": "fashion_mnist",
    "split": {"validation": 10000},
    "epochs": 20,
    "batch_size": {"choices": [32, 64, 128]},
    "mlp": {
        "depth": {"low": 1, "high": 3},
        "width": {"low": 16, "high": 128, "step": 16},
        "dropout": {"low": 0.0, "high": 0.3, "step": 0.1, "shared": True},
        "activation": {"choices": ["relu", "gelu", "tanh"]},
        "norm": {"choices": ["none", "batch"]},
    },
    "optimizer": {
        "name": {"choices": ["sgd", "sgd_momentum", "adam", "adamw", "rmsprop"]},
        "lr": {"low": 1e-4, "high": 1e-1, "log": True},
        "weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
    },
    "schedule": {"name": {"choices": ["none", "cosine", "one_cycle"]}},
}
"""What throughput and whole studies draw from."""
SMALL = {"data_fraction": 0.02, "epochs": 2}
CNNS = Case("fashion_mnist", (), (2,), (32, 64), 0.2, 5, None, (16, 32, 64))
PROMISED = {"mlps": {"by hand": 100.0, "solo": 15.0}, "cnns": {"by hand": 15.0}, "one trial": {"by hand": 8.0}}
"""How many times the trials per hour of each side hpo shall have on an H100 or H200."""
ENGINES: tuple[EngineName, ...] = ("solo", "packed", "auto")
OF_THE_ENGINE = 0.6
"""What a study by `hpo run` shall have of the engine's own trials per hour."""


def agreement(part: "Part") -> None:
    """Train pairs packed and solo; refill places; start trials in a lane that is at work."""
    from benchmarks.packing_checks import measure_agreement, measure_refill

    prepare(part)
    part.put(agreement=measure_agreement(part.device, *((6, 0.03) if part.small else ())))
    part.say("agreement: Spearman {spearman}, mean difference {mean_difference:+.5f}".format(**part.found["agreement"]))
    part.put(refill=measure_refill(part.device, 1, epochs=(1, 2, 4) if part.small else (3, 9, 27)))
    part.say("refilled/static {refilled/static}, a start {start_in_warm_lane_ms} ms".format(**part.found["refill"]))


def prepare(part: "Part") -> torch.device:
    """Get the data and return the device."""
    use_one_thread()
    data.fetch(data.info("fashion_mnist"))
    device = choose_device(part.device)
    part.put(device=describe(device), torch=torch.__version__)
    return device


def space_of(part: "Part") -> SearchSpace:
    return SearchSpace.model_validate_json(json.dumps(SPACE | (SMALL if part.small else {})))


def draws(space: SearchSpace, count: int) -> list[TrialConfig]:
    """Return random trials of a space."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    plain = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.draw(plain.ask(), number) for number in range(count)]


Rate = Callable[[Sequence[TrialConfig], float], dict[str, Any]]
"""Trains trials for at most so many seconds; returns trials per hour and what else is to be known."""


@dataclass(frozen=True)
class Side:
    """A way to train trials, and its share of the time."""

    name: str
    share: float
    rate: Rate


def throughput(part: "Part") -> None:
    """Measure trials per hour of all sides, each for a share of the time, on three sets of trials."""
    device, space = prepare(part), space_of(part)
    count = 6 if part.small else 200
    cnns = configs(CNNS if not part.small else replace(CNNS, rows=0.01, epochs=1, channels=(4, 8)), count // 3, seed=2)
    one = TrialConfig("fashion_mnist", MLP((128, 64), (0.0, 0.0)), Adam(1e-3), 64, 20, split=Split(10000))
    sets = {"mlps": draws(space, count), "cnns": cnns}
    sets["one trial"] = [replace(one, data_fraction=0.1, epochs=3) if part.small else one]
    store = SoloEngine(device)
    engines = {kind: _engine_rate(kind, part.device, store) for kind in ENGINES}
    stores = {"by hand": store if device.type == "cpu" else SoloEngine(torch.device("cpu"))}
    by_hand = [Side(name, 0.1, _by_hand(device, stores.get(name, store), batches)) for name, batches in LOADERS.items()]
    shares = {
        "mlps": [*by_hand, Side("solo", 0.1, engines["solo"]), Side("packed", 0.3, engines["packed"])],
        "cnns": [by_hand[0], Side("solo", 0.1, engines["solo"]), Side("packed", 0.2, engines["packed"])],
        "one trial": [*by_hand, Side("solo", 0.1, engines["solo"])],
    }
    if device.type == "cuda":
        without_triton = mock.patch.dict(os.environ, {fused.SWITCH: "0"})(engines["packed"])
        shares["mlps"].append(Side("packed without Triton", 0.15, without_triton))
    for name in ("mlps", "cnns"):
        shares[name].append(Side("auto", 0.15, engines["auto"]))
    left = sum(side.share for sides in shares.values() for side in sides)
    part.put(space=SPACE, largest=max(map(_weights, cnns)))
    for name, sides in shares.items():
        found: dict[str, Any] = {"trials": len(sets[name])}
        for side in sides:
            seconds = max(1.0, (part.left() - 5) * side.share / left)
            left -= side.share
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            found[side.name] = side.rate(sets[name], seconds)
            if device.type == "cuda":
                found[side.name]["gpu_gb"] = round(torch.cuda.max_memory_reserved(device) / 1e9, 2)
            part.put(**{name: found})
        hourly = {side.name: found[side.name]["trials_per_hour"] for side in sides}
        best = max(rate for side, rate in hourly.items() if side in engines)
        ratios = {side: round(best / rate, 2) for side, rate in hourly.items() if rate}
        part.put(**{name: found | {"best_over": ratios}})
        part.say(f"{name}: " + ", ".join(f"{side} {rate:,.0f}/h" for side, rate in hourly.items()))
        for other, promised in PROMISED[name].items() if device.type == "cuda" else ():
            got = ratios.get(other, 0.0)
            part.say(f"  hpo/{other}: {got}x (to reach: {promised}x){'' if got >= promised else '  MISSED'}")


def _weights(config: TrialConfig) -> int:
    return parameter_count(build_model(config.model, (1, 28, 28), 10, seed=0))


def _engine_rate(kind: EngineName, device: str, store: SoloEngine) -> Rate:
    """Return what trains with an engine, on the data sets that another one has loaded."""

    def rate(trials: Sequence[TrialConfig], seconds: float) -> dict[str, Any]:
        """Train trials as a runner would until all have ended, or the time is over."""
        engine = make_engine(kind, device)
        engine._data = store._data  # type: ignore[attr-defined]
        store.data(trials[0])
        waiting, live = list(enumerate(trials)), set[int]()
        done, ended, faults, first, status = 0.0, 0, [], None, dict[str, float]()
        began = time.perf_counter()
        while (waiting or live) and time.perf_counter() - began < seconds:
            for _ in range(min(engine.room(), len(waiting))):
                key, config = waiting.pop(0)
                engine.admit(key, config)
                live.add(key)
            status = dict(engine.status()) if len(live) > len(trials) // 10 else status
            for key, outcome in engine.step().items():
                first = first or time.perf_counter() - began
                last = not isinstance(outcome, EpochResult) or outcome.last
                done += isinstance(outcome, EpochResult) / trials[key].epochs
                if not isinstance(outcome, EpochResult) and outcome.kind != "diverged":
                    faults.append(outcome.message)
                if last:
                    ended += 1
                    live.remove(key)
                    engine.evict(key)
        taken = time.perf_counter() - began
        for key in live:
            engine.evict(key)
        return {
            "trials_per_hour": round(3600 * done / taken, 1),
            "complete": not waiting and not live,
            "ended": ended,
            "seconds": round(taken, 1),
            "first_epoch_after": round(first or 0.0, 2),
            "faults": faults[:5],
            **status,
        }

    return rate


Batches = Iterator[tuple[Tensor, Tensor]]


def _loader(config: TrialConfig, rows: ResidentData, device: torch.device) -> Batches:
    """The loop of tutorials: rows in the CPU's memory, a DataLoader without processes."""
    pairs = TensorDataset(rows.train_x, rows.train_y)
    for x, y in DataLoader(pairs, config.batch_size, shuffle=True, drop_last=True):
        yield x.to(device), y.to(device)


def _on_device(config: TrialConfig, rows: ResidentData, device: torch.device) -> Batches:
    """The best that a short loop can do: rows on the device, a random order, batches by index."""
    order = torch.randperm(len(rows.train_y), device=device)
    for part in torch.split(order, config.batch_size)[: max(1, len(order) // config.batch_size)]:
        yield rows.train_x[part], rows.train_y[part]


LOADERS = {"by hand": _loader, "by hand, rows on the device": _on_device}


def _by_hand(
    device: torch.device, store: SoloEngine, batches: Callable[[TrialConfig, ResidentData, torch.device], Batches]
) -> Rate:
    """Return what trains one epoch of one trial after another; a trial's time is its epochs times that."""

    def rate(trials: Sequence[TrialConfig], seconds: float) -> dict[str, Any]:
        _epoch(trials[0], store.data(trials[0]), device, batches)  # what only the first one takes
        done, epochs, began = 0.0, 0, time.perf_counter()
        for config in cycle(trials):
            _epoch(config, store.data(config), device, batches)
            done, epochs = done + 1 / config.epochs, epochs + 1
            if time.perf_counter() - began > seconds:
                break
        taken = time.perf_counter() - began
        return {"trials_per_hour": round(3600 * done / taken, 1), "epochs": epochs, "seconds": round(taken, 1)}

    return rate


def _epoch(
    config: TrialConfig,
    rows: ResidentData,
    device: torch.device,
    batches: Callable[[TrialConfig, ResidentData, torch.device], Batches],
) -> None:
    model = build_model(config.model, rows.input_shape, rows.classes, seed=config.seed).to(device)
    optimizer = build_optimizer(config.optimizer, model.parameters(), device)
    model.train()
    for x, y in batches(config, rows, device):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.eval()
    with torch.no_grad():
        for x, y in zip(torch.split(rows.validation_x, 1000), torch.split(rows.validation_y, 1000), strict=True):
            (model(x.to(device)).argmax(1) == y.to(device)).sum().item()


def study(part: "Part") -> None:
    """Search whole studies by `hpo run`: without pruning, to be compared with the engine alone; then with it."""
    from benchmarks.gpu_parts import Folder, tell

    prepare(part)
    trials = 6 if part.small else 200
    own = _best_of(part.path.with_name("throughput.json"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mlps.toml").write_text(tomlkit.dumps(SPACE | (SMALL if part.small else {})))
        recipe = (
            '[budget]\nmax_failures = 100\n\n[sampler]\nname = "tpe"\nstartup_trials = 20\n\n[pruner]\nname = "none"\n'
        )
        (folder / "whole.toml").write_text(recipe)
        for place, chosen in enumerate((str(folder / "whole.toml"), "default")):
            kind = "with pruning" if place else "without pruning"
            options = ("--space", str(folder / "mlps.toml"), "--recipe", chosen, "--trials", str(trials))
            found = Folder(folder).search(
                f"study-{place}", part.left() / (2 - place) - 5, *options, "--device", part.device
            )
            if "left_out" in found:
                tell(part, kind, found)
                continue
            counts = found.get("counts") or {}
            ended = sum(counts.get(state, 0) for state in ("COMPLETE", "PRUNED"))
            found["trials_per_hour"] = round(3600 * ended / (found.get("active_seconds") or found["seconds"]))
            part.put(**{kind: found})
            tell(part, kind, found)
            part.say(f"hpo run, {kind}: {ended} trials, {found['trials_per_hour']:,}/h, best {found.get('best_value')}")
            if own and not place:
                share = round(found["trials_per_hour"] / own, 2)
                part.put(of_the_engine=share)
                part.say(f"  of the engine's own rate: {share} (to reach: {OF_THE_ENGINE})")


def _best_of(path: Path) -> float | None:
    """Return the engines' best trials per hour of MLPs, from the file of the part before."""
    found = json.loads(path.read_text()).get("mlps", {}) if path.exists() else {}
    rates = [found[kind]["trials_per_hour"] for kind in ("packed", "auto") if kind in found]
    return max(rates) if rates else None
