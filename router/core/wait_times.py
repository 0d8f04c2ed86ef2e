"""How long requests waited in the router."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

WAIT_BOUNDS_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds; a hold ends with a prefill, some 10 ms to some seconds, an outage lasts longer."""


class WaitTimes:
    """Times waited, by length."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(WAIT_BOUNDS_S) + 1)
        """Waits in each bucket, the last one of those above all bounds; not summed up."""
        self.total_s = 0.0

    def observe(self, waited_s: float) -> None:
        """A request waits no longer; a wait of a bound's length belongs to the bucket below it."""
        self.counts[bisect_left(WAIT_BOUNDS_S, waited_s)] += 1
        self.total_s += waited_s
