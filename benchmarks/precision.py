"""Where bf16 autocast pays on this device: epochs of the same network in fp32 and bf16, taking turns.

    python -m benchmarks.precision [--repeats 5] [--rows 8192] [--device auto]

Prints fp32 time over bf16 time (above 1: bf16 is faster) for each shape, beside what `auto` chooses there. On a CPU it
is CPU time, so that other work on the machine hardly matters.
The rule in `hpo/training/devices.py` is read off this table: it may pass over a gain, never choose a loss.
"""

import argparse
import dataclasses
import json
import statistics
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch

from hpo.config import CNN, MLP, Adam, Network, Split, TrialConfig
from hpo.data import fetch, info, load_parts
from hpo.training.dataset import resident
from hpo.training.devices import choose_device, describe, resolve_precision, use_one_thread
from hpo.training.epoch import Run

NETWORKS: dict[str, Network] = {
    **{f"MLP {w}": MLP((w,), (0.2,), norm="batch") for w in (64, 128, 256, 512)},
    **{f"MLP {w}-{w // 2}": MLP((w, w // 2), (0.2, 0.2), norm="batch") for w in (128, 256, 512)},
    "MLP 128x4": MLP((128,) * 4, (0.2,) * 4, norm="batch"),
    "MLP 512x4": MLP((512,) * 4, (0.2,) * 4, norm="batch"),
    "CNN 8-16": CNN((8, 16), (0.0, 0.0), norm="batch"),
    "CNN 16-32": CNN((16, 32), (0.0, 0.0), norm="batch"),
    "CNN 16-32-64": CNN((16, 32, 64), (0.0,) * 3, norm="batch"),
    "CNN 32-64, twice": CNN((32, 64), (0.0, 0.0), convs=(2, 2), norm="batch"),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--rows", type=int, default=8192)
    arguments.add_argument("--device", default="auto")
    arguments.add_argument("-o", "--output", type=Path)
    options = arguments.parse_args()
    use_one_thread()
    fetch(info("fashion_mnist"))
    device = choose_device(options.device)
    split = Split(10000)
    config = TrialConfig("fashion_mnist", NETWORKS["CNN 8-16"], Adam(lr=1e-3), 64, 1, split=split)
    whole = resident(load_parts(info("fashion_mnist"), split), config, device)
    rows = options.rows
    data = dataclasses.replace(whole, train_x=whole.train_x[:rows], train_y=whole.train_y[:rows])
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    ratios: dict[str, float] = {}
    report = {
        "date": date.today().isoformat(),
        "device": describe(device),
        "torch": torch.__version__,
        "ratios": ratios,
    }
    for name, network in NETWORKS.items():
        for batch in (32, 64, 128, 256, 512) if network.family == "mlp" else (32, 128):
            config = TrialConfig("fashion_mnist", network, Adam(1e-3), batch, 100, split=split)
            runs = {p: Run(replace(config, precision=p), data, device) for p in ("fp32", "bf16")}
            times: dict[str, list[float]] = {p: [] for p in runs}
            for turn in range(options.repeats + 1):
                for precision, run in runs.items():
                    start = clock()
                    run.train_only(turn)
                    if turn:
                        times[precision].append(clock() - start)
            ratio = statistics.median(times["fp32"]) / statistics.median(times["bf16"])
            chosen = resolve_precision("auto", network, (1, 28, 28), batch, device)
            ratios[f"{name}, batch {batch}"] = round(ratio, 2)
            loss = "  A LOSS" if chosen == "bf16" and ratio < 1 else ""
            print(f"{name:18} batch {batch:4}: {ratio:5.2f}x, auto: {chosen}{loss}", flush=True)
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
