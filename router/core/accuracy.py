"""How far predictions were off, once it was seen."""

from __future__ import annotations

ERROR_BOUNDS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0, 2.0, 5.0)
"""Upper bounds of the absolute error, as a share of what was seen."""


class Accuracy:
    """Errors of one kind of prediction, by size."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(ERROR_BOUNDS) + 1)
        self.sum = 0.0
        """Sum of the errors."""

    def observe(self, predicted_s: float, seen_s: float) -> None:
        """A prediction came due."""
        error = abs(predicted_s - seen_s) / max(seen_s, 1e-3)
        self.sum += error
        number = 0
        for bound in ERROR_BOUNDS:
            if error <= bound:
                break
            number += 1
        self.counts[number] += 1

    @property
    def count(self) -> int:
        """Predictions that came due."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """The error that ``share`` of the predictions kept within; None before any.

        Interpolated within the bounds, so no finer than these.
        """
        count = self.count
        if not count:
            return None
        rank, below, low = share * count, 0, 0.0
        for bound, within in zip(ERROR_BOUNDS, self.counts, strict=False):
            if within and below + within >= rank:
                return low + (bound - low) * (rank - below) / within
            below += within
            low = bound
        return ERROR_BOUNDS[-1]
