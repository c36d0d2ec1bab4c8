"""What augmentation adds to a CNN's epoch: each kind, and all at once, over the same epoch without.

    python -m benchmarks.augmentation [--rows 8000] [--repeats 5] [-o FILE]

The network is the tutorials' for Fashion-MNIST (32-64-128, batch norm), batch 64, in the precision that `auto` takes.
"""

import argparse
import json
import platform
import statistics
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch

from hpo.config import CNN, Adam, Augment, Split, TrialConfig
from hpo.data import fetch, info, load_parts
from hpo.training.dataset import resident
from hpo.training.devices import choose_device, describe, use_one_thread
from hpo.training.epoch import Run
from hpo.training.graphed_run import GraphedRun

KINDS = {
    "none": Augment(),
    "flip": Augment(flip=0.5),
    "shift": Augment(shift=2),
    "flip and shift": Augment(flip=0.5, shift=2),
    "rotate": Augment(rotate=15.0),
    "erase": Augment(erase=0.3),
    "jitter": Augment(jitter=0.2),
    "all": Augment(flip=0.5, shift=2, rotate=15.0, erase=0.3, jitter=0.2),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=8000)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--device", default="auto")
    arguments.add_argument("-o", "--output", type=Path)
    options = arguments.parse_args()
    use_one_thread()
    device, data = choose_device(options.device), info("fashion_mnist")
    fetch(data)
    network = CNN((32, 64, 128), (0.0,) * 3, norm="batch", head_width=64)
    config = TrialConfig(data.name, network, Adam(lr=1e-3), batch_size=64, epochs=1000, split=Split(10000))
    whole = resident(load_parts(data, config.split), config, device)
    rows = replace(whole, train_x=whole.train_x[: options.rows].clone(), train_y=whole.train_y[: options.rows].clone())
    kind = GraphedRun if device.type == "cuda" else Run
    runs = {name: kind(replace(config, augment=augment), rows, device) for name, augment in KINDS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(options.repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run.train_only(repeat)
            if repeat > 0:  # the first one warms up
                seconds[name].append(time.perf_counter() - start)
    added = {}
    for name, times in seconds.items():
        # Sides alternate: each repeat gives one ratio.
        ratios = [one / plain for one, plain in zip(times, seconds["none"], strict=True)]
        added[name] = round(100 * (statistics.median(ratios) - 1), 2)
        print(f"{name:16s} {statistics.median(times):.3f} s, {added[name]:+.1f} %")
    report = {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "device": describe(device),
        "torch": torch.__version__,
        "rows": options.rows,
        "added_percent": added,
    }
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
