"""Workers as Slurm jobs, submitted by submitit."""

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

import hpo
from hpo.errors import UsageError
from hpo.runner.launchers.contract import Ended, Order, Resources
from hpo.runner.launchers.machines import Marker, refuse_one_machine, travelling_environment
from hpo.runner.launchers.slurm_job import ENDED, KILL, STARTED, STOP, run_worker

ASK_SECONDS = 60.0
"""How often Slurm is asked about jobs; their own files are looked at each time."""
LATE_SECONDS = 10.0
"""How long a file of a job may take to be seen here, after Slurm says that the job has ended."""
KILL_SECONDS = 5.0
"""How long a kill waits for the job to see it."""
MINUTES = 240
"""Time limit of a job without the option `time`."""
OWN_OPTIONS = ("cluster", "time", "mem_gb")
"""Options that are not submitit's for Slurm."""


class SlurmWorker:
    """A worker in a job."""

    def __init__(self, job: Any, name: Path, launcher: "SlurmLauncher") -> None:
        self.place = ""
        self._job, self._name, self._launcher = job, name, launcher
        self._done_at: float | None = None
        self._ended: Ended | None = None

    def _file(self, ending: str) -> Path:
        return self._name.with_name(f"{self._name.name}.{ending}")

    def poll(self) -> Ended | None:
        """Return how it ended, None if it has not. It writes its log itself."""
        if self._ended is None:
            if not self.place and (started := _read(self._file(STARTED))) is not None:
                self.place = str(started["place"])
            report = _read(self._file(ENDED))
            if report is None:
                self._ended = self._look_at_job()
            elif report["leaving"] and report["code"] == 0:
                self._ended = Ended(None, "Slurm takes its job away")
            else:
                self._ended = Ended(int(report["code"]), str(report["cause"]))
        return self._ended

    def _look_at_job(self) -> Ended | None:
        """Return how the job ended, if it ended without telling so."""
        if not self._job.done(force_check=self._launcher.may_ask()):
            return None
        now = time.monotonic()
        self._done_at = self._done_at or now
        if now - self._done_at < LATE_SECONDS:
            return None
        state = f"Slurm job {self._job.job_id} ended: {self._job.state}"
        if self.place:
            return Ended(None, state)
        return Ended(70, f"{state}. What it wrote: {self._job.paths.stderr}")

    def stop(self) -> None:
        """Have it release its trials after the current epoch, and end; a job that waits is cancelled."""
        self._file(STOP).touch()
        if not self.place:
            self._cancel()

    def kill(self) -> None:
        """End it at once; its job is cancelled if it does not do so itself."""
        self._file(KILL).touch()
        deadline = time.monotonic() + KILL_SECONDS
        while self.place and self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        self._cancel()
        self._ended = self._ended or Ended(-9)

    def _cancel(self) -> None:
        if self._ended is None:
            self._job.cancel(check=False)
            if not self.place:
                self._ended = Ended(0)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


class SlurmLauncher:
    """Submits workers to Slurm, or to submitit's local executor, which runs jobs on this machine."""

    waits = True

    def __init__(self, resources: Resources, options: Mapping[str, str], url: URL) -> None:
        """Check all that can be checked before a job runs. Raises: UsageError."""
        try:
            import submitit  # noqa: F401
        except ImportError as error:
            raise UsageError(
                "on: slurm needs submitit, which is not installed. Install it: pip install 'hpo[slurm]'"
            ) from error
        cluster = options.get("cluster", "slurm")
        if cluster not in ("slurm", "local"):
            raise UsageError(f'on_option: cluster must be slurm or local, got "{cluster}".')
        if cluster == "slurm":
            if shutil.which("sbatch") is None or shutil.which("srun") is None:
                raise UsageError(
                    "on: this machine is none of a Slurm cluster: sbatch is not found. Run this on a login node; "
                    "--on-option cluster=local runs the jobs on this machine."
                )
            refuse_one_machine(url, "Slurm")
        if resources.cpus % 1 or resources.gpus % 1:
            raise UsageError(f"on: Slurm gives whole CPUs and GPUs, got {resources}.")
        self._environment = travelling_environment(url)
        self._executor = _executor(cluster, resources, options)
        self._folder = self._executor.folder
        self._marker = Marker.put(url)
        self._asked_at = time.monotonic()
        self._submitted = False

    def may_ask(self) -> bool:
        """Return whether it is time to ask Slurm about the jobs."""
        due = time.monotonic() - self._asked_at > ASK_SECONDS
        if due:
            self._asked_at = time.monotonic()
        return due

    def start(self, order: Order) -> SlurmWorker:
        """Submit a job. Raises: UsageError if Slurm refuses the first, OSError if it refuses a later one."""
        name = secrets.token_hex(8)
        log = order.log.absolute()
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _environment({**order.environment, **self._environment}):
                job = self._executor.submit(
                    run_worker,
                    name,
                    order.arguments,
                    str(log),
                    folder=str(self._folder),
                    version=hpo.__version__,
                    marker=(self._marker.path, self._marker.content),
                )
        except RuntimeError as error:  # submitit's errors of a command
            refusal = " ".join(str(error).split())
            if not self._submitted:
                raise UsageError(f"on: Slurm refuses the job: {refusal}") from error
            raise OSError(f"Slurm refuses the job: {refusal}") from error
        self._submitted = True
        return SlurmWorker(job, self._folder / name, self)

    def close(self) -> None:
        """Remove the file that shows jobs the common folder."""
        self._marker.remove()


def _executor(cluster: str, resources: Resources, options: Mapping[str, str]) -> Any:
    """Return submitit's executor with a new folder below runs/slurm. Raises: UsageError for an option that is none."""
    import submitit

    folder = Path("runs").absolute() / "slurm" / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700, parents=True)
    added = {f"slurm_{name}": value for name, value in options.items() if name not in OWN_OPTIONS}
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(
            name="hpo-worker",
            timeout_min=int(options.get("time", MINUTES)),
            mem_gb=float(options["mem_gb"]) if "mem_gb" in options else None,
            cpus_per_task=int(resources.cpus),
            gpus_per_node=int(resources.gpus) or None,
            **added,
        )
    except (ValueError, NameError, AssertionError, TypeError) as error:
        raise UsageError(f"on_option: submitit refuses: {str(error).splitlines()[0]}") from error
    return executor


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Have variables in this process's environment for a while: a job inherits them, and no file keeps a password."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
