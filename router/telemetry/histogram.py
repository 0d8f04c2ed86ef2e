"""A histogram that costs a bisection.

prometheus_client's own takes a lock and walks through the buckets (2 µs and more). Everything here
happens on the one thread of the event loop, so that neither is needed; the text formats are still
prometheus_client's.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Histogram:
    """Counts of values by bucket, and their sum.

    Args:
        bounds: Upper bounds of the buckets, rising; one for everything above is added.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Values in each bucket; not summed up."""
        self.total = 0.0
        """Sum of all values."""

    def observe(self, value: float) -> None:
        """Count a value; one that equals a bound belongs to the bucket below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return the buckets as Prometheus wants them: bound, and values up to there."""
        labels = [*map(str, self.bounds), "+Inf"]
        summed: list[tuple[str, float]] = []
        below = 0
        for label, count in zip(labels, self.counts, strict=True):
            below += count
            summed.append((label, below))
        return summed
