"""The networks of the tutorials against what a search finds: test scores, mean of three trainings.

    python -m benchmarks.tutorials ann_fashion:4m ann_digits:1m cnn_images:10m:pictures.npz [-o FILE]

Each argument is a space, the time to search it and, where it has no data of its own, a file of the user's. The search
is `hpo run`; its winner is confirmed by `hpo confirm` (the five best and the baselines' best, three fresh seeds each)
if --confirm is given; winner and baselines are then trained on three further seeds, and tested, as `hpo train` does.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from hpo import data, space
from hpo.results.export import Export, read_config, to_toml
from hpo.service.data import own_data
from hpo.suggesters import FixedSuggester

SEEDS = 3


def hpo(folder: Path, *arguments: str) -> str:
    """Run a command; return what it prints."""
    environment = {**os.environ, "HPO_STORAGE": f"sqlite:///{folder}/studies.db"}
    command = [sys.executable, "-m", "hpo", *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def trained(folder: Path, config: Path) -> dict[str, Any]:
    """Train an exported file on three seeds; return mean and single test scores."""
    text = hpo(folder, "train", str(config), "-o", str(folder / "model"), "--seeds", str(SEEDS), "--json")
    metrics = json.loads(text)
    seeds = metrics["seeds"]
    return {
        "mean": seeds["mean"],
        "test_accuracies": seeds["test_accuracies"],
        "macro_f1": metrics["test_macro_f1"],
        "parameters": metrics["parameters"],
    }


def compared(argument: str, confirm: bool) -> dict[str, Any]:
    """Search one space; return the scores of its baselines and of the winner."""
    name, timeout, *own = argument.split(":")
    found = space.load_space(name)
    if own:
        found = found.model_copy(update={"data": own_data(own[0], own[1] if len(own) > 1 else None)})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        options = ["--data", own[0], *(["--label", own[1]] if len(own) > 1 else [])] if own else []
        hpo(folder, "run", "--space", name, "--timeout", timeout, *options)
        state = json.loads(hpo(folder, "studies", "show", name, "--json"))
        if confirm:
            hpo(folder, "confirm", name, "--seeds", "3")
        hpo(folder, "export", name, "-o", str(folder / "winner.toml"))
        config, provenance = read_config(folder / "winner.toml")
        result: dict[str, Any] = {
            "space": name,
            "data": data.info(found.data).name,
            "trials": state["counts"]["COMPLETE"] + state["counts"]["PRUNED"],
            "search_seconds": round(state["active_seconds"]),
            "verdict": provenance.get("verdict"),
            "winner": config.summary(),
            "found": trained(folder, folder / "winner.toml"),
            "baselines": {},
        }
        for baseline in found.baselines:
            by_hand = found.draw(FixedSuggester(baseline.values()), seed=0)
            path = folder / "baseline.toml"
            path.write_text(to_toml(Export(replace(by_hand), {}, "a baseline")))
            result["baselines"][baseline.name] = trained(folder, path)
    return result


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("spaces", nargs="+")
    arguments.add_argument("--confirm", action="store_true")
    arguments.add_argument("-o", "--output", type=Path)
    options = arguments.parse_args()
    rows: list[dict[str, Any]] = []
    report = {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "seeds": SEEDS,
        "rows": rows,
    }
    for argument in options.spaces:
        row = compared(argument, options.confirm)
        rows.append(row)
        for name, scores in row["baselines"].items():
            print(f"{row['data']}: by hand {scores['mean']:.4f} ({name})", flush=True)
        print(f"{row['data']}: found {row['found']['mean']:.4f} ({row['winner']}), {row['trials']} trials", flush=True)
        if options.output:
            options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
