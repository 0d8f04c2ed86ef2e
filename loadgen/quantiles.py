"""Quantiles of measured values, by nearest rank: every figure is a value that was measured."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def nearest_rank(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all values do not exceed.

    Args:
        ordered: The values, ascending, at least one.
        share: 0 to 1; 0.99 for p99.

    Raises:
        IndexError: There are no values.
    """
    return ordered[max(ceil(share * len(ordered)), 1) - 1]


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """What is reported of a set of values; its unit is the unit of the values."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Distribution | None:
        """The distribution of ``values``; None when there are none."""
        ordered = sorted(values)
        if not ordered:
            return None
        return cls(
            count=len(ordered),
            mean=sum(ordered) / len(ordered),
            p50=nearest_rank(ordered, 0.5),
            p90=nearest_rank(ordered, 0.9),
            p99=nearest_rank(ordered, 0.99),
            max=ordered[-1],
        )
