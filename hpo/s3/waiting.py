"""How long S3 may keep a worker waiting: some seconds at once, and a tenth of the time from then on."""

import threading
import time

SECONDS = 20.0
"""Seconds that it may take at once, by default."""
SHARE = 0.1
"""Part of the time from then on."""
FREE_SECONDS = 1.0
"""The first second of an operation that succeeds is not counted: so long S3 takes where all is well."""
BYTES_PER_SECOND = 4e6
"""Nor is the time that bytes take at this rate, that of a line of 32 Mbit/s."""
LONGEST = 6.0
"""However many bytes there are, an operation may last so many times the seconds that S3 may take at once."""


class Allowance:
    """The seconds that are left: they are used up by operations, and come back slowly."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = self._left = seconds
        self._at = time.monotonic()

    def left(self) -> float:
        """Return the seconds that are left."""
        now = time.monotonic()
        self._left = min(self.seconds, self._left + SHARE * (now - self._at))
        self._at = now
        return self._left

    def pause(self) -> float:
        """Return the seconds until enough is left for an operation, a quarter of all; 0 if there is."""
        return max(0.0, self.seconds / 4 - self.left()) / SHARE

    def use(self, seconds: float) -> None:
        """Take seconds off, as many as there are."""
        self._left = max(0.0, self.left() - max(0.0, seconds))


class Exchange:
    """One operation: what it has taken, and what it may take."""

    def __init__(self, allowance: Allowance, size: int = 0) -> None:
        """`size` is that of the content that is sent."""
        self.bytes, self.requests = size, 0
        self.over = threading.Event()
        """Set when it has ended, well or not."""
        self._given_up = False
        self._seconds, self._longest = allowance.left(), LONGEST * allowance.seconds
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """The seconds that it has taken."""
        return time.monotonic() - self._began

    @property
    def counted(self) -> float:
        """The seconds that it has taken beyond those that it may take anyway."""
        return self.seconds - FREE_SECONDS - self.bytes / BYTES_PER_SECOND

    @property
    def late(self) -> bool:
        """Whether it has taken too long."""
        return self._given_up or self.counted > self._seconds or self.seconds > self._longest

    def wait(self) -> bool:
        """Wait for its end as long as it may take, then give it up; return whether it has ended."""
        while not self.over.wait(0.1):
            if self.late:
                self._given_up = True
                return False
        return True

    def check(self) -> None:
        """Raise: TimeoutError if it has taken too long."""
        if self.late:
            raise TimeoutError(f"no whole answer within {self.seconds:.0f} s")
