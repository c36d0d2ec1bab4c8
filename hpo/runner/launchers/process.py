"""A worker as a child process: what every launcher runs in the end, on whatever machine."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpo import files
from hpo.interpreter import python

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


class WorkerProcess:
    """A running `hpo worker`. It stops when its standard input closes, so also when its parent dies."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        output: Path,
        *,
        command: Sequence[str] = (),
    ) -> None:
        """Start it, or another command; what it writes is added to `output`. Raises: OSError."""
        begin = command or python("-X", "faulthandler", "-m", "hpo", "worker", "--supervised")
        output.parent.mkdir(parents=True, exist_ok=True)
        self._output = files.under(output.parent, output.name).open("ab")
        try:
            self._process = subprocess.Popen(
                [*begin, *arguments],
                stdin=subprocess.PIPE,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment, **ONE_THREAD},
                start_new_session=True,  # Ctrl-C reaches only the supervisor
            )
        except BaseException:
            self._output.close()
            raise

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        code = self._process.poll()
        if code is not None:
            self.stop()
            self._output.close()
        return code

    def stop(self) -> None:
        """Have it release its trials after the current epoch, and end."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()

    def kill(self) -> None:
        """Kill it and wait for its end."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self.poll()
