"""Lanes that are nearly empty: whether their trials go faster in a wider lane, by trying it.

A wider lane pads narrow networks; a lane for a few pays a whole program's overhead for them. Which weighs more
depends on the widths and on the device, so two lanes are put together for an epoch, timed, and parted again if that was
not faster. What was found holds for the pair of buckets from then on.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpo.training.packed.bucket import Bucket
from hpo.training.packed.lane import Lane

NEARLY_EMPTY = 0.25
"""Part of a lane's slots with a live trial, up to which it may move."""
MARGIN = 0.95
"""Together they must take less than this part of the time they took apart."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Attempt:
    """A narrow lane that moved into a wide one, not yet judged."""

    narrow: Bucket
    wide: Lane
    moved: frozenset[int]
    live: frozenset[int]
    before: float
    """Seconds that an epoch of both took."""


class Merging:
    """Puts lanes together where that measures faster; one attempt at a time."""

    def __init__(self, seconds: Callable[[Sequence[Lane]], float | None]) -> None:
        """`seconds` tells how long the last epoch of lanes took; None if it was no ordinary one."""
        self._seconds = seconds
        self._faster: dict[tuple[Bucket, Bucket], bool] = {}
        self._attempt: _Attempt | None = None

    def home(self, bucket: Bucket, lanes: Sequence[Lane]) -> Lane | None:
        """Return a lane with room that a bucket's newcomer is known to be better off in than in one of its own."""
        fitting = (lane for lane in lanes if self._faster.get((bucket, lane.bucket)) and lane.room > 0)
        return next(fitting, None)

    def begin(self, lanes: Sequence[Lane]) -> Lane | None:
        """Move one lane's trials into another, if that is worth trying; return the lane that they left."""
        if self._attempt is not None:
            return None
        for narrow in lanes:
            for wide in lanes:
                before = self._seconds([narrow, wide]) if self._may_join(narrow, wide) else None
                if before is not None:
                    moved = narrow.trials()
                    wide.absorb(narrow)
                    self._attempt = _Attempt(narrow.bucket, wide, frozenset(moved), frozenset(wide.live()), before)
                    return narrow
        return None

    def _may_join(self, narrow: Lane, wide: Lane) -> bool:
        known = self._faster.get((narrow.bucket, wide.bucket), True)
        return (
            known
            and wide.shared
            and narrow.bucket.narrower_than(wide.bucket)
            and 0 < len(narrow.live()) <= NEARLY_EMPTY * narrow.slots
            and len(narrow.trials()) <= wide.room
            and bool(wide.live())
        )

    def judge(self) -> Lane | None:
        """Once both have had an ordinary epoch together, keep them so, or part them; return the lane made anew."""
        attempt = self._attempt
        if attempt is None:
            return None
        wide = attempt.wide
        if frozenset(wide.live()) != attempt.live:  # others came or went: nothing can be compared
            self._attempt = None
            return None
        after = self._seconds([wide])
        if after is None:
            return None
        self._attempt = None
        faster = self._faster[attempt.narrow, wide.bucket] = after < MARGIN * attempt.before
        _log.debug("%s with %s: %.3f s, apart %.3f s", attempt.narrow, wide.bucket, after, attempt.before)
        return None if faster else wide.part(attempt.moved, attempt.narrow)
