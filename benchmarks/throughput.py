"""Samples per second of the solo engine against the loops that people write by hand, all in one run.

    python -m benchmarks.throughput [--repeats 7] [--rows 20000] [--device auto]

Each side trains the same network, batch size and optimizer for one epoch of real Fashion-MNIST rows, on one
CPU thread; the sides take turns, and the ratio is that of the medians. Nothing is validated on any side.

    tutorial   torchvision dataset, ToTensor + Normalize, DataLoader, torch's default optimizer
    loader     DataLoader over tensors in memory, torch's default optimizer
    bare       x[order[i:i+b]] over tensors in memory, torch's fused optimizer, nothing else
    engine     hpo's solo engine, training accuracy and loss included
"""

import argparse
import dataclasses
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision import datasets, transforms

from hpo.config import CNN, MLP, SGD, Adam, Split, TrialConfig
from hpo.data import fetch, info, load_parts
from hpo.data.cache import path_of
from hpo.models import build_model
from hpo.training.dataset import resident
from hpo.training.devices import choose_device, describe, use_one_thread
from hpo.training.solo import run_kind

BATCH = 64
MLP_CONFIG = TrialConfig("fashion_mnist", MLP((128, 64), (0.0, 0.0)), SGD(0.1), BATCH, 100, split=Split(10000))
CASES = {
    "MLP 784-128-64-10, SGD": MLP_CONFIG,
    "MLP 784-128-64-10, Adam": replace(MLP_CONFIG, optimizer=Adam(1e-3)),
    "CNN 16-32-64, Adam": replace(
        MLP_CONFIG, model=CNN((16, 32, 64), (0.0, 0.0, 0.0), norm="batch"), optimizer=Adam(1e-3)
    ),
}
REQUIRED = {"MLP": {"tutorial": 5.0, "loader": 1.15, "bare": 0.97}, "CNN": {"tutorial": 2.0}}


def torchvision_rows(rows: int, folder: Path) -> Subset[tuple[Tensor, int]]:
    """Return the tutorial's data set, over the files of our cache."""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    data = info("fashion_mnist")
    for file in data.files:
        (raw / file.name).symlink_to(path_of(data, file).resolve())
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.2860,), (0.3530,))])
    return Subset(datasets.FashionMNIST(str(folder), train=True, transform=transform), range(rows))


def by_hand(
    config: TrialConfig,
    device: torch.device,
    fused: bool | None,
    batches: Callable[[], Iterator[tuple[Tensor, Tensor]]],
) -> Callable[[], None]:
    """Return a function that trains one epoch in the plainest loop."""
    model = build_model(config.model, (1, 28, 28), 10, seed=0).to(device)
    kind = torch.optim.SGD if isinstance(config.optimizer, SGD) else torch.optim.Adam
    optimizer = kind(model.parameters(), lr=config.optimizer.lr, fused=fused)

    def epoch() -> None:
        model.train()
        for x, y in batches():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x.to(device)), y.to(device))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return epoch


def sides(config: TrialConfig, rows: int, device: torch.device, folder: Path) -> dict[str, Callable[[], object]]:
    """Return what is compared: each trains one epoch when called."""
    whole = resident(load_parts(info("fashion_mnist"), config.split), config, device)
    data = dataclasses.replace(whole, train_x=whole.train_x[:rows].clone(), train_y=whole.train_y[:rows].clone())
    plain_x = data.train_x.contiguous()

    def bare() -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(rows, device=device)
        for i in range(0, rows - BATCH + 1, BATCH):
            part = order[i : i + BATCH]
            yield plain_x[part], data.train_y[part]

    tutorial = DataLoader(torchvision_rows(rows, folder), BATCH, shuffle=True)
    # Rows in the CPU's memory, as the loop has them: on a GPU each would else be fetched from there by itself.
    loader = DataLoader(TensorDataset(plain_x.cpu(), data.train_y.cpu()), BATCH, shuffle=True)
    run, epochs = run_kind(device)(config, data, device), iter(range(10**6))
    return {
        "tutorial": by_hand(config, device, None, lambda: iter(tutorial)),
        "loader": by_hand(config, device, None, lambda: iter(loader)),
        "bare": by_hand(config, device, True, bare),
        "engine": lambda: run.train_only(next(epochs)),
    }


def measure(functions: dict[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, float]:
    """Return the median seconds of each side, taking turns after one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=7)
    arguments.add_argument("--rows", type=int, default=20000)
    arguments.add_argument("--device", default="auto")
    arguments.add_argument("--only", default="", help="cases whose name contains this")
    arguments.add_argument("-o", "--output", type=Path)
    options = arguments.parse_args()
    use_one_thread()
    fetch(info("fashion_mnist"))
    device = choose_device(options.device)
    report = {
        "date": date.today().isoformat(),
        "device": describe(device),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "rows": options.rows,
        "repeats": options.repeats,
        "cases": {},
    }
    for case, config in CASES.items():
        if options.only not in case:
            continue
        with tempfile.TemporaryDirectory() as folder:
            seconds = measure(sides(config, options.rows, device, Path(folder)), options.repeats, device)
        speed = {name: round(options.rows / value) for name, value in seconds.items()}
        ratios = {f"engine/{n}": round(seconds[n] / seconds["engine"], 2) for n in seconds if n != "engine"}
        report["cases"][case] = {"samples_per_second": speed, **ratios}
        print(f"{case}: " + ", ".join(f"{n} {v:,}/s" for n, v in speed.items()))
        for name, required in REQUIRED[case[:3]].items():
            got = ratios[f"engine/{name}"]
            print(f"  engine/{name}: {got:.2f}x (promised >= {required}x){'' if got >= required else '  MISSED'}")
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
