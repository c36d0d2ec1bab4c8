"""Workers as processes of this machine."""

import platform
from collections.abc import Sequence

from hpo.runner.launchers.contract import Ended, Order
from hpo.runner.launchers.process import WorkerProcess


class LocalWorker:
    """A worker on this machine; it writes its log itself."""

    def __init__(self, order: Order, command: Sequence[str] = ()) -> None:
        self.place = platform.node()
        self._process = WorkerProcess(order.arguments, order.environment, order.log, command=command)

    def poll(self) -> Ended | None:
        """Return how it ended; None if it has not."""
        code = self._process.poll()
        return None if code is None else Ended(code)

    def stop(self) -> None:
        """Have it release its trials after the current epoch, and end."""
        self._process.stop()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


class LocalLauncher:
    """Starts workers on this machine."""

    waits = False

    def __init__(self, command: Sequence[str] = ()) -> None:
        """`command` starts a worker, in place of `hpo worker`."""
        self._command = command

    def start(self, order: Order) -> LocalWorker:
        """Start a worker. Raises: OSError if its log cannot be written, or there is no memory for a process."""
        return LocalWorker(order, self._command)

    def close(self) -> None:
        """Do nothing: nothing is held."""
