"""The parts of `benchmarks.gpu`, each run as a process by it; those that train are in `benchmarks.gpu_rates`."""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hpo import files
from hpo.interpreter import python

TROUBLE = re.compile(r"(?i)graph|out of memory|one by one|warning|error|traceback")
NO_GRAPH = re.compile(r"(?i)without a CUDA graph|graph is empty|differs? from (the )?plain")


@dataclass
class Part:
    """A part at work: what it was told, and what it has found."""

    device: str
    small: bool
    deadline: float
    """By the monotonic clock."""
    path: Path
    found: dict[str, Any] = field(default_factory=dict)

    def left(self) -> float:
        """Return the seconds that are left."""
        return max(0.0, self.deadline - time.monotonic())

    def put(self, **figures: Any) -> None:
        """Keep figures, in the file too."""
        self.found |= figures
        files.write(self.path, json.dumps(self.found, indent=1, default=str) + "\n")

    def fault(self, line: str) -> None:
        """Print a line about what went wrong; the part is then a failure."""
        self.put(faults=[*self.found.get("faults", ()), line])
        self.say(f"FAILED {line}")

    def say(self, line: str) -> None:
        """Print a line, and keep it for the summary."""
        print(line, flush=True)
        self.put(said=[*self.found.get("said", ()), line])


def facts(part: Part) -> None:
    """Find out what the device, its driver and torch are, and how long their simplest calls take."""
    import torch

    from hpo.training.devices import choose_device, describe

    names = ("torchvision", "numpy", "optuna", "sqlalchemy", "pydantic", "triton")
    found = {name: _version(name) for name in names}
    device = choose_device(part.device)
    part.put(
        device=describe(device),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        packages=found,
        python=platform.python_version(),
        cores=os.cpu_count(),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
    )
    part.say(f"{describe(device)}, torch {torch.__version__}, Python {platform.python_version()}")
    if device.type != "cuda":
        part.say("no CUDA device: its times are not measured")
        return
    about = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    part.put(
        memory_gb={"free": round(free / 1e9, 1), "total": round(total / 1e9, 1)},
        multiprocessors=about.multi_processor_count,
        capability=f"{about.major}.{about.minor}",
        cudnn=torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        devices=torch.cuda.device_count(),
    )
    if smi := shutil.which("nvidia-smi"):
        fields = "name,driver_version,clocks.sm,clocks.max.sm,memory.used,utilization.gpu,mig.mode.current"
        asked = subprocess.run([smi, f"--query-gpu={fields}", "--format=csv"], capture_output=True, text=True)
        part.put(nvidia_smi=(asked.stdout + asked.stderr).strip().splitlines())
    part.put(**_times(device))
    part.say(f"a launch {part.found['launch_us']} us, in a graph {part.found['launch_in_a_graph_us']} us")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _times(device: Any) -> dict[str, float]:
    """Return microseconds of a small kernel, alone and in a graph of 100, and TFLOP/s of a matrix product in fp32."""
    import torch

    torch.cuda.set_device(device)
    small, large = torch.zeros(1000, device=device), torch.randn(4096, 4096, device=device)

    def microseconds(action: Callable[[], object], calls: int) -> float:
        action()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            action()
        torch.cuda.synchronize()
        return 1e6 * (time.perf_counter() - start) / calls

    graph = torch.cuda.CUDAGraph()
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.graph(graph, stream=side):
        for _ in range(100):
            small.add_(1)
    return {
        "launch_us": round(microseconds(lambda: small.add_(1), 2000), 2),
        "launch_in_a_graph_us": round(microseconds(graph.replay, 200) / 100, 2),
        "fp32_tflops": round(2 * 4096**3 / microseconds(lambda: large @ large, 20) / 1e6, 1),
    }


def tests(part: Part) -> None:
    """Run the tests that need a GPU."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        root = Path(__file__).parent.parent
        command = python("-m", "pytest", "-m", "cuda", "-rs", "-p", "no:cacheprovider", f"--junitxml={report}")
        code = subprocess.run([*command, "--rootdir", str(root), str(root / "tests")], cwd=root).returncode
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    outcomes: dict[str, list[str]] = {"failure": [], "error": [], "skipped": [], "passed": []}
    for case in cases:
        outcome = next((child.tag for child in case if child.tag in outcomes), "passed")
        message = next((child.get("message", "") for child in case if child.tag == outcome), "")
        outcomes[outcome].append(f"{case.get('classname')}.{case.get('name')}: {message}".rstrip(": "))
    part.put(exit_code=code, **outcomes)
    part.say(", ".join(f"{len(names)} {outcome}" for outcome, names in outcomes.items()))
    for name in (*outcomes["failure"], *outcomes["error"]):
        part.fault(name[:200])
    if code and not part.found.get("faults"):
        part.fault(f"pytest: exit code {code}")


def resume(part: Part) -> None:
    """Kill a training, resume it, compare."""
    space = "ann_digits" if part.small else "ann_fashion"
    command = python("-m", "hpo", "doctor", "resume", "--json", "--device", part.device, "--space", space)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    part.put(exit_code=done.returncode, proof=json.loads(done.stdout) if done.stdout else None)
    if done.stdout:
        part.say(f"differing after a kill: {', '.join(part.found['proof']['differing']) or 'nothing'}")
    if done.returncode:
        part.fault(f"hpo doctor resume: exit code {done.returncode}")


@dataclass(frozen=True)
class Folder:
    """A folder with a store, its artifacts and the logs of its workers."""

    path: Path

    def environment(self) -> Mapping[str, str]:
        """Return the environment of commands that work there."""
        return os.environ | {"HPO_STORAGE": f"sqlite:///{self.path}/studies.db", "HPO_ARTIFACTS": str(self.path)}

    def search(self, name: str, seconds: float, *options: str) -> dict[str, Any]:
        """Search by `hpo run` for at most so many seconds; return figures of the study and of its workers' logs."""
        if seconds < 10:
            return {"left_out": "no time was left"}
        limit = f"{max(5, seconds - 5):.0f}s"
        command = python("-m", "hpo", "run", "--study", name, "--timeout", limit, *options)
        began = time.monotonic()
        process = subprocess.Popen(command, env=self.environment(), stdout=subprocess.DEVNULL)
        try:
            process.wait(timeout=seconds + 5)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:  # its workers end when it has gone
                process.kill()
                process.wait()
        found: dict[str, Any] = {"exit_code": process.returncode, "seconds": round(time.monotonic() - began, 1)}
        show = python("-m", "hpo", "studies", "show", name, "--json", "--top", "1")
        shown = subprocess.run(show, env=self.environment(), capture_output=True, text=True)
        study: dict[str, Any] = json.loads(shown.stdout) if shown.returncode == 0 else {"error": shown.stderr}
        kept = ("error", "counts", "best_value", "active_seconds", "trials_per_hour", "lanes", "occupancy", "failures")
        lines = [line for log in sorted(self.path.rglob("*.log")) for line in log.read_text().splitlines()]
        for log in self.path.rglob("*.log"):
            log.unlink()
        if counts := study.get("counts"):
            study["counts"] = {state: number for state, number in counts.items() if number}
        return found | {
            **{key: study[key] for key in kept if key in study},
            "without_graph": sum(bool(NO_GRAPH.search(line)) for line in lines),
            "logged": [line[:300] for line in lines if TROUBLE.search(line)][:30],
        }


def studies(part: Part) -> None:
    """Search a small study with each engine."""
    space, trials = ("ann_digits", "3") if part.small else ("ann_fashion", "12")
    with tempfile.TemporaryDirectory() as folder:
        for place, engine in enumerate(("solo", "packed", "auto")):
            options = ("--space", space, "--engine", engine, "--trials", trials, "--workers", "1")
            found = Folder(Path(folder)).search(
                engine, part.left() / (3 - place) - 3, *options, "--device", part.device
            )
            part.put(**{engine: found})
            tell(part, engine, found)


def tell(part: Part, name: str, found: Mapping[str, Any]) -> None:
    """Say how a search went: `found` is of `Folder.search`."""
    if "left_out" in found:
        part.fault(f"{name}: {found['left_out']}")
        return
    part.say(
        f"{name}: {found.get('counts')}, best {found.get('best_value')}, "
        f"{found['without_graph']} times without a graph, {len(found['logged'])} lines of trouble in the logs"
    )
    if found["exit_code"] or found["without_graph"]:
        part.fault(f"{name}: exit code {found['exit_code']}, {found['without_graph']} times without a graph")


def main() -> None:
    from benchmarks import gpu_rates

    parts: dict[str, Callable[[Part], None]] = {
        "facts": facts,
        "tests": tests,
        "resume": resume,
        "studies": studies,
        "agreement": gpu_rates.agreement,
        "throughput": gpu_rates.throughput,
        "study": gpu_rates.study,
    }
    arguments = argparse.ArgumentParser()
    arguments.add_argument("part", choices=parts)
    arguments.add_argument("--device", required=True)
    arguments.add_argument("--small", action="store_true")
    arguments.add_argument("--seconds", type=float, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    options = arguments.parse_args()
    deadline = time.monotonic() + options.seconds
    part = Part(options.device, options.small, deadline, options.out / f"{options.part}.json")
    part.put(date=datetime.now().isoformat(timespec="seconds"), small=options.small)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parts[options.part](part)
    sys.exit(1 if "faults" in part.found else 0)


if __name__ == "__main__":
    main()
