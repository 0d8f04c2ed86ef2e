"""From the lines of a metric, or the numbers of a JSON page, to the values of a sample.

A replica with several data-parallel ranks has one line a rank. Requests and blocks add up. KV
occupancy is averaged: the engine spreads requests over its ranks itself, so the mean is what a
router can act on.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec

from router.engines.scan import series

if TYPE_CHECKING:
    from collections.abc import Iterable

    from router.engines.scan import Series

JsonCount: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A count on a JSON page; a page with any other number in its place is not believed."""


def first_of(page: bytes, names: Iterable[bytes]) -> list[Series]:
    """The lines of the first of ``names`` that is on ``page``.

    Raises:
        ValueError: A line has no number.
    """
    for name in names:
        if lines := series(page, name):
            return lines
    return []


def values(lines: Iterable[Series]) -> list[float]:
    """The values of ``lines``."""
    return [line.value for line in lines]


def total(numbers: Iterable[float]) -> int | None:
    """The sum of counts; None without any, or when one is no count (NaN, infinite, negative)."""
    counts = list(numbers)
    if not counts or not all(count >= 0 for count in counts):
        return None
    added = sum(counts)
    return round(added) if added < math.inf else None


def mean_share(numbers: Iterable[float]) -> float | None:
    """The mean of shares, each at most 1; None without any, or when one is no share."""
    shares = list(numbers)
    if not shares or not all(0 <= share < math.inf for share in shares):
        return None
    return math.fsum(min(share, 1.0) for share in shares) / len(shares)


def whole(text: str | None) -> int | None:
    """A label's value as a count; None for ``None`` and whatever else is no whole number."""
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
