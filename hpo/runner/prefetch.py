"""Prefetching: trials are claimed and drawn while a device trains others, so that a free slot is filled at once."""

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from hpo.runner.session import Assignment
from hpo.store.leases.claims import NothingToClaim
from hpo.store.leases.stopping import StopReason

CHUNK = 8
"""Most trials in one claim: a claim takes as long as one or two draws."""
MEMORY = 0.8
"""Weight of earlier steps in the moving averages."""
SAFETY = 0.7
"""Fraction of the draws that fit into a step by the measured times that is planned for."""

Claim = Callable[[int], Sequence[Assignment] | NothingToClaim | StopReason]


class Prefetcher:
    """Draws in a separate thread between `begin` and `end`; nothing else uses the session meanwhile.

    What is drawn before it is needed knows less of the others. So a trial is drawn as late as it can be, and
    only as early as it must be where many end together.
    """

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.ready: deque[Assignment] = deque()
        """Trials that are claimed and not yet given to the engine; the oldest first."""
        self._pool = ThreadPoolExecutor(1, "ahead")
        self._drawing: Future[None] | None = None
        self._enough = threading.Event()
        self._begun = 0.0
        self.step_seconds = self.draw_seconds = 0.0
        self.early = 0.0
        """Mean number of trials per step that end before their last epoch."""

    def noted(self, early: int) -> None:
        """Record how many trials ended early in a step."""
        self.early = _mean(self.early, early)

    def begin(self, left: Sequence[int]) -> None:
        """Start to draw the trials that cannot be drawn later; `left` are the remaining epochs of the live trials."""
        self._begun = time.perf_counter()
        wanted = self.wanted(left) - len(self.ready)
        if wanted > 0:
            self._enough.clear()
            self._drawing = self._pool.submit(self._draw, wanted)

    def wanted(self, left: Sequence[int]) -> int:
        """Return how many trials should be ready after the step that begins."""
        rate = SAFETY * self.step_seconds / self.draw_seconds if self.draw_seconds else math.inf
        ends = Counter(left)
        needed, most = 0.0, 0.0
        for steps in range(1, max(ends, default=0) + 1):
            needed += ends[steps] + self.early
            most = max(most, needed - (rate * (steps - 1) if steps > 1 else 0.0))
        return math.ceil(most)

    def end(self) -> None:
        """Stop drawing, and wait for the draw in progress. Raises: WorkerLost, StoreError."""
        self.step_seconds = _mean(self.step_seconds, time.perf_counter() - self._begun)
        self._enough.set()
        drawing, self._drawing = self._drawing, None
        if drawing is not None:
            drawing.result()

    def _draw(self, wanted: int) -> None:
        while wanted > 0 and not self._enough.is_set():
            start = time.perf_counter()
            claimed = self.claim(max(1, min(wanted, self._that_fit(start))))
            if isinstance(claimed, NothingToClaim | StopReason):
                return  # the loop gets the same answer
            self.ready.extend(claimed)
            wanted -= len(claimed)
            self.draw_seconds = _mean(self.draw_seconds, (time.perf_counter() - start) / max(1, len(claimed)))
            if self._that_fit(time.perf_counter()) == 0:
                return

    def _that_fit(self, now: float) -> int:
        """Return how many draws would end before the step does."""
        left = self._begun + self.step_seconds - now
        return min(CHUNK, int(left / self.draw_seconds)) if self.draw_seconds else 1


def _mean(before: float, now: float) -> float:
    return MEMORY * before + (1 - MEMORY) * now if before else now
