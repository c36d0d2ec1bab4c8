"""What the packed engine is measured against: other ways to train the same trials."""

import json
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import replace

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
    workers = [context.Process(target=_work, args=(share, device, barrier)) for share in shares]
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


def ms_to_start_in_a_warm_lane(trials: Sequence[TrialConfig], device: str, turns: int = 9) -> float:
    """Return the median milliseconds by which a trial's coming lengthens the step of a lane that is at work."""
    engine = make_engine("packed", device)
    waiting = [replace(config, epochs=100) for config in trials]
    engine.admit(0, waiting[0])
    for key, config in enumerate(waiting[1 : engine.room()], 1):
        if engine.room() > 1:
            engine.admit(key, config)
    plain, with_newcomer = [], []
    key = len(waiting)
    for _ in range(turns):
        for _ in range(2):
            plain.append(_seconds_of_step(engine, device))
        start = time.perf_counter()
        engine.admit(key, replace(waiting[0], seed=key))
        admitted = time.perf_counter() - start
        with_newcomer.append(admitted + _seconds_of_step(engine, device))
        engine.evict(key)
        key += 1
    return 1000 * (sorted(with_newcomer)[turns // 2] - sorted(plain)[turns])


def _seconds_of_step(engine: engine.Engine, device: str) -> float:
    start = time.perf_counter()
    engine.step()
    if choose_device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
