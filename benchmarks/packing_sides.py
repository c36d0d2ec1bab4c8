"""What the packed engine is measured against: other ways to train the same trials."""

import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from hpo.config import TrialConfig
from hpo.models import build_model
from hpo.runner.worker import make_engine
from hpo.training import engine
from hpo.training.dataset import ResidentData
from hpo.training.devices import choose_device, use_one_thread
from hpo.training.engine import EpochResult
from hpo.training.optimizers import build_optimizer
from hpo.training.packed.scheduling.engine import PackedEngine
from hpo.training.solo import SoloEngine


def train_all(engine: engine.Engine, trials: Sequence[TrialConfig]) -> dict[int, EpochResult]:
    """Train trials as a runner would, without a store; return the last epoch of each."""
    waiting = list(enumerate(trials))
    final: dict[int, EpochResult] = {}
    while len(final) < len(trials):
        for _ in range(min(engine.room(), len(waiting))):
            key, config = waiting.pop(0)
            engine.admit(key, config)
        for key, outcome in engine.step().items():
            if not isinstance(outcome, EpochResult):
                raise RuntimeError(f"trial {key}: {outcome}")
            if outcome.last:
                final[key] = outcome
                engine.evict(key)
    return final


def train_in_static_batches(engine: engine.Engine, trials: Sequence[TrialConfig], size: int) -> None:
    """Train as systems without refilling do: places of a batch stay taken until its longest trial has ended."""
    for start in range(0, len(trials), size):
        batch = trials[start : start + size]
        longest = max(config.epochs for config in batch)
        train_all(engine, [replace(config, epochs=longest) for config in batch])


def train_by_hand(config: TrialConfig, data: ResidentData, device: torch.device) -> None:
    """Train one trial in the loop that people write: a DataLoader, modules, autograd, torch.optim; then validate."""
    model = build_model(config.model, data.input_shape, data.classes, seed=config.seed).to(device)
    optimizer = build_optimizer(config.optimizer, model.parameters(), device)
    learning = DataLoader(TensorDataset(data.train_x, data.train_y), config.batch_size, shuffle=True, drop_last=True)
    judging = DataLoader(TensorDataset(data.validation_x, data.validation_y), 1000)
    for _ in range(config.epochs):
        model.train()
        for x, y in learning:
            optimizer.zero_grad()
            F.cross_entropy(model(x.to(device)), y.to(device)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for x, y in judging:
                (model(x.to(device)).argmax(1) == y.to(device)).sum().item()


def seconds_by_hand(trials: Sequence[TrialConfig], device: torch.device) -> float:
    """Return the seconds that trials take one after another in the plain loop; rows lie in the CPU's memory."""
    engine = SoloEngine(torch.device("cpu"))
    rows = [engine.data(config) for config in trials]
    start = time.perf_counter()
    for config, data in zip(trials, rows, strict=True):
        train_by_hand(config, data, device)
    return time.perf_counter() - start


def seconds_of_processes(trials: Sequence[TrialConfig], device: str, count: int) -> float:
    """Return the seconds that so many processes take, each with a solo engine and its share of the trials.

    They begin together, once each has its data on the device and one trial behind it.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(count + 1)
    shares = [[json.dumps(config.to_dict()) for config in trials[i::count]] for i in range(count)]
    workers = [context.Process(target=_work, args=(share, device, barrier), daemon=True) for share in shares]
    for worker in workers:
        worker.start()
    barrier.wait()
    start = time.perf_counter()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise RuntimeError(f"a process ended with {worker.exitcode}")
    return time.perf_counter() - start


def _work(share: list[str], device: str, barrier: "multiprocessing.synchronize.Barrier") -> None:
    use_one_thread()
    trials = [TrialConfig.from_dict(json.loads(text), "share") for text in share]
    engine = make_engine("solo", device)
    train_all(engine, [replace(trials[0], epochs=1)])
    barrier.wait()
    train_all(engine, trials)


class StartInLane(NamedTuple):
    """What it takes to start a trial in a lane that is at work."""

    milliseconds: float
    """By which the trial's coming lengthens the lane's epoch, its admission included: the median."""
    epoch_milliseconds: float
    """Of the lane without a newcomer: the median."""
    slots: int
    """Trials in the lane, the newcomer included."""


def ms_to_start_in_a_lane_at_work(config: TrialConfig, device: str, turns: int = 9) -> StartInLane:
    """Fill a lane with trials of a config but for one place, and start another trial there again and again."""
    engine = make_engine("packed", device)
    assert isinstance(engine, PackedEngine)
    config = replace(config, epochs=1000)
    held = 0
    while held < engine.slots - 1:
        engine.admit(held, replace(config, seed=held))
        held += 1
    plain, with_newcomer = [], []
    for turn in range(turns + 1):
        for _ in range(2):
            plain.append(_seconds_of_step(engine, device))
        start = time.perf_counter()
        engine.admit(held + turn, replace(config, seed=held + turn))
        admitted = time.perf_counter() - start
        with_newcomer.append(admitted + _seconds_of_step(engine, device))
        engine.evict(held + turn)
    usual = statistics.median(plain[2:])  # not what is recorded and allocated in the first turn
    return StartInLane(
        round(1000 * (statistics.median(with_newcomer[1:]) - usual), 1), round(1000 * usual, 1), held + 1
    )


def _seconds_of_step(engine: engine.Engine, device: str) -> float:
    def step() -> None:
        engine.step()
        if choose_device(device).type == "cuda":
            torch.cuda.synchronize()

    return seconds_of(step)


def seconds_of(action: Callable[[], object]) -> float:
    """Return the seconds that an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def tell(what: str, got: float, promised: float) -> None:
    """Print a ratio beside what was promised."""
    print(f"  {what}: {got:.2f}x (promised >= {promised}x){'' if got >= promised else '  MISSED'}", flush=True)
