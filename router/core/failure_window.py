"""The share of failures among the last attempts on one replica."""

from __future__ import annotations

from typing import Final

BUCKETS: Final = 10


class FailureWindow:
    """Counts attempts exactly, in a ring of buckets of equal time.

    A moving average would hide a short outage behind the many good attempts before it.

    Args:
        span_s: How far it looks back, to within one bucket.
    """

    __slots__ = ("_bucket", "_failed", "_total", "_turn_s", "_width_s")

    def __init__(self, span_s: float) -> None:
        self._width_s = span_s / BUCKETS
        self._bucket = 0
        self._turn_s = self._width_s
        """When the bucket is full."""
        self._total = [0] * BUCKETS
        self._failed = [0] * BUCKETS

    def add(self, now: float, *, failed: bool) -> None:
        """An attempt ended at ``now``."""
        if now >= self._turn_s:
            self._turn(now)
        place = self._bucket % BUCKETS
        self._total[place] += 1
        self._failed[place] += failed

    def counts(self, now: float) -> tuple[int, int]:
        """Attempts and failures within the span."""
        self._turn(now)
        return sum(self._total), sum(self._failed)

    def clear(self) -> None:
        """Forget everything."""
        self._total = [0] * BUCKETS
        self._failed = [0] * BUCKETS

    def _turn(self, now: float) -> None:
        bucket = int(now / self._width_s)
        passed = bucket - self._bucket
        if passed <= 0:
            return
        for place in range(bucket - min(passed, BUCKETS) + 1, bucket + 1):
            self._total[place % BUCKETS] = self._failed[place % BUCKETS] = 0
        self._bucket = bucket
        self._turn_s = (bucket + 1) * self._width_s
