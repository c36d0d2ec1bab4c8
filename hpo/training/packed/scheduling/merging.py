"""Merging of nearly empty lanes into wider ones, where that is measured to be faster.

A wider lane pads narrow networks; a lane of few trials pays the overhead of a whole program for them. Which costs more
depends on the widths and on the device, so two lanes are merged for an epoch, timed, and separated again if that was
not faster. The result is used for the pair of buckets from then on.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpo.training.packed.layout.bucket import Bucket
from hpo.training.packed.scheduling.lane import Lane

NEARLY_EMPTY = 0.25
"""Largest share of slots with a live trial with which a lane is merged into another."""
MARGIN = 0.95
"""Merged lanes must take less than this share of the time that they took separately: less could be chance."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Attempt:
    """A narrow lane that was merged into a wide one, for which nothing is decided yet."""

    narrow: Bucket
    wide: Lane
    moved: frozenset[int]
    live: frozenset[int]
    before: float
    """Seconds of an epoch of both lanes, separately."""


class Merging:
    """Merges lanes where that is measured to be faster; one attempt at a time."""

    def __init__(self, seconds: Callable[[Sequence[Lane]], float | None]) -> None:
        """`seconds` returns the duration of the latest epoch of lanes; None if it cannot be compared."""
        self._seconds = seconds
        self._faster: dict[tuple[Bucket, Bucket], bool] = {}
        self._attempt: _Attempt | None = None

    def lane_for(self, bucket: Bucket, lanes: Sequence[Lane]) -> Lane | None:
        """Return a wider lane with room in which trials of a bucket are known to be trained faster."""
        fitting = (lane for lane in lanes if self._faster.get((bucket, lane.bucket)) and lane.room > 0)
        return next(fitting, None)

    def pair(self, lanes: Sequence[Lane]) -> tuple[Lane, Lane] | None:
        """Return a narrow and a wide lane that may be faster as one, if there are such and nothing is being tried."""
        if self._attempt is not None:
            return None
        pairs = ((narrow, wide) for narrow in lanes for wide in lanes if self._may_join(narrow, wide))
        return next((pair for pair in pairs if self._seconds(pair) is not None), None)

    def merge(self, narrow: Lane, wide: Lane) -> None:
        """Merge a pair, neither of which has an epoch under way; the narrow lane is empty then."""
        before = self._seconds([narrow, wide])
        assert before is not None
        moved = narrow.trials()
        wide.absorb(narrow)
        self._attempt = _Attempt(narrow.bucket, wide, frozenset(moved), frozenset(wide.live()), before)

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

    def decide(self) -> Lane | None:
        """Once an epoch of the merged lanes was timed, keep them merged, or separate them and return the new lane.

        To be called when an epoch was collected, as that of the merged lanes may be.
        """
        attempt = self._attempt
        if attempt is None:
            return None
        wide = attempt.wide
        if frozenset(wide.live()) != attempt.live:  # trials joined or left: the times cannot be compared
            self._attempt = None
            return None
        after = self._seconds([wide])
        if after is None:
            return None
        self._attempt = None
        faster = self._faster[attempt.narrow, wide.bucket] = after < MARGIN * attempt.before
        _log.debug("%s with %s: %.3f s, separately %.3f s", attempt.narrow, wide.bucket, after, attempt.before)
        return None if faster else wide.separate(attempt.moved, attempt.narrow)
