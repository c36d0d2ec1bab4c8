"""Everything that is to be known about hpo on a GPU, in one command for a machine that is lent for minutes.

    python -m benchmarks.gpu [--parts facts,tests,...] [--minutes 9.5] [--out gpu-results] [--device cuda] [--data DIR]
    python -m benchmarks.gpu --device cpu --small      # a rehearsal without a GPU

facts       the device, its driver, torch; times of a launch, of a graph's replay, of a matrix product
tests       `pytest -m cuda`
resume      `hpo doctor resume`: a killed training goes on from its checkpoint
studies     a small study with each engine by `hpo run`, and what their workers logged about graphs that failed
agreement   24 trainings packed and solo; places refilled against static batches; a trial's start in a lane at work
throughput  trials per hour of MLPs, of CNNs and of one trial alone: a DataLoader loop, one over rows on the
            device, the solo engine, the packed one with and without Triton, `auto`
study       200 trials by `hpo run`, without and with pruning, in trials per hour

Parts run in this order, whatever their order on the command line, each in a process of its own and with a time limit:
its share of the minutes that are left. Each keeps its results in OUT/PART.json, written anew whenever a figure is
added, so what was measured before an end by force is there; OUT/log.txt has what they printed.

Needed are torch, torchvision, NumPy, scikit-learn, safetensors, pytest, pytest-timeout, and the wheels that
`benchmarks.bare_environment` lists; no network, no dashboard, no database server. `--data` names a folder with
fashion_mnist/*.gz (what HPO_DATA names, if it is not given). CUDA_VISIBLE_DEVICES chooses the GPU.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from hpo import files
from hpo.interpreter import python

SECONDS = {"facts": 15, "tests": 110, "resume": 45, "studies": 90, "agreement": 60, "throughput": 160, "study": 90}
"""The parts in their order, with their shares of the time."""
GRACE = 5.0
"""Seconds that a part has after SIGTERM."""


@dataclass(frozen=True)
class Job:
    """What the parts are told."""

    device: str
    small: bool
    out: Path


def run_part(part: str, job: Job, seconds: float) -> str:
    """Run a part in its own process group; return how it ended, which its file says too."""
    path = job.out / f"{part}.json"
    path.unlink(missing_ok=True)
    command = python("-m", "benchmarks.gpu_parts", part, "--device", job.device, "--out", str(job.out))
    command += ["--seconds", f"{seconds:.0f}", *(["--small"] if job.small else [])]
    began = time.monotonic()
    with (job.out / "log.txt").open("ab") as log:
        log.write(f"\n== {part}, at most {seconds:.0f} s\n".encode())
        log.flush()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(timeout=seconds)
            end = "complete" if code == 0 else f"failed (exit code {code}): see log.txt"
        except subprocess.TimeoutExpired:
            end = f"ended after {seconds:.0f} s, its time limit"
        finally:
            end_group(process)
    found = json.loads(path.read_text()) if path.exists() else {}
    taken = round(time.monotonic() - began, 1)
    whole = {"part": part, "end": end, "seconds": taken, "limit": round(seconds), **found}
    files.write(path, json.dumps(whole, indent=1) + "\n")
    print(f"{part}: {end}, {taken:.0f} s", flush=True)
    for line in found.get("said", ()):
        print(f"  {line}", flush=True)
    return end


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started in its group."""
    for number, grace in ((signal.SIGTERM, GRACE), (signal.SIGKILL, 0.1)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + grace
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
    process.wait()


def chosen(text: str) -> list[str]:
    """Return the parts that a list names, in their order."""
    wanted = text.split(",")
    if unknown := [name for name in wanted if name not in SECONDS]:
        raise SystemExit(f"--parts: must be of {','.join(SECONDS)}, got {','.join(unknown)}.")
    return [part for part in SECONDS if part in wanted]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--parts", default=",".join(SECONDS), help="which, separated by commas")
    arguments.add_argument("--minutes", type=float, default=9.5, help="for all parts together")
    arguments.add_argument("--out", type=Path, default=Path("gpu-results"))
    arguments.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu for a rehearsal")
    arguments.add_argument("--small", action="store_true", help="fewer and shorter trials")
    arguments.add_argument("--data", type=Path, help="folder of the data sets, as .gz files or unpacked")
    options = arguments.parse_args()
    parts = chosen(options.parts)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.data:
        os.environ["HPO_DATA"] = str(options.data.absolute())
    # Of this checkout, whatever is installed; children do not import from the working folder.
    root = str(Path(__file__).parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    os.environ |= {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    job = Job(options.device, options.small, options.out.absolute())
    deadline, ends = time.monotonic() + 60 * options.minutes, {}
    for place, part in enumerate(parts):
        share = SECONDS[part] / sum(SECONDS[later] for later in parts[place:])
        left = deadline - time.monotonic() - GRACE
        ends[part] = run_part(part, job, share * left) if left > 1 else "not begun: no time was left"
    for part, end in ends.items():
        if end != "complete":
            print(f"{part}: {end}", file=sys.stderr)
    raise SystemExit(any(end != "complete" for end in ends.values()))


if __name__ == "__main__":
    main()
