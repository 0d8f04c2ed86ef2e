"""The highest rate at which enough requests meet their objective."""

from __future__ import annotations

from math import inf, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_TARGET = 0.95
DEFAULT_TOLERANCE = 0.01

WIDE_STEP = 2.0
"""First step of a search that knows nothing yet."""

NARROW_STEP = 1.06
"""First step of a search that begins where an equal workload had its edge under another seed: then
it takes five or six simulations instead of ten."""

_LEAST_SCALE = 2.0**-14


def highest_scale(
    is_met: Callable[[float], bool],
    start: float,
    tolerance: float = DEFAULT_TOLERANCE,
    step: float = WIDE_STEP,
    most: float = inf,
) -> float | None:
    """Search the highest factor on a trace's rate at which its target is met.

    From ``start`` on the factor goes up, or down, in steps that grow to a doubling, until the
    target is met on one side and missed on the other; then the interval is halved, in ratio, until
    its ends are ``tolerance`` apart. Goodput falls with the rate, but not everywhere: near the edge
    it may be met again a little above. So what is found is *an* edge, and the tolerance is that of
    the search.

    Args:
        is_met: Simulates at a factor and says whether the target is met.
        start: The first factor to try.
        tolerance: The factor found is at most this share below one at which the target was missed.
        step: The first step, as a ratio above 1.
        most: Nothing above this factor is tried.

    Returns:
        The highest factor found at which the target is met, so the last one for which ``is_met``
        said yes; None when it is missed even at a rate close to nothing.
    """
    low, high = _bracket(is_met, min(start, most), step, most)
    if low is None or high is None:
        return low
    while high > low * (1 + tolerance):
        middle = sqrt(low * high)
        if is_met(middle):
            low = middle
        else:
            high = middle
    return low


def _bracket(
    is_met: Callable[[float], bool], start: float, step: float, most: float
) -> tuple[float | None, float | None]:
    """A factor at which the target is met and one, a step higher, at which it is missed."""
    scale = start
    if is_met(scale):
        while scale < most:
            higher = min(scale * step, most)
            if not is_met(higher):
                return scale, higher
            scale, step = higher, _longer(step)
        return scale, None
    while scale > start * _LEAST_SCALE:
        lower = scale / step
        if is_met(lower):
            return lower, scale
        scale, step = lower, _longer(step)
    return None, None


def _longer(step: float) -> float:
    return max(min(step * step, WIDE_STEP), step)
