"""Gaps between tokens, counted instead of kept: a simulation has millions of them."""

from __future__ import annotations

from collections import Counter
from math import ceil

RESOLUTION_S = 1e-5
"""Gaps are told apart by this much; an engine step takes some 10 ms."""


class TokenGaps:
    """How often each gap between two tokens of one answer occurred, all answers together."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, gap_s: float, times: int = 1) -> None:
        """Note ``times`` gaps of ``gap_s``."""
        self._counts[round(gap_s / RESOLUTION_S)] += times

    def quantile(self, share: float) -> float | None:
        """The gap that at least ``share`` of all do not exceed, in seconds; None without any.

        By nearest rank, as :func:`loadgen.quantiles.nearest_rank`, but over counted values.
        """
        rank = max(ceil(share * self._counts.total()), 1)
        for gap in sorted(self._counts):
            rank -= self._counts[gap]
            if rank <= 0:
                return gap * RESOLUTION_S
        return None
