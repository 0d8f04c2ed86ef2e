"""The highest rate at which enough requests meet their objective."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_TARGET = 0.95
DEFAULT_TOLERANCE = 0.01

_MOST_SCALE = 2.0**14
_LEAST_SCALE = 2.0**-14


def highest_scale(
    is_met: Callable[[float], bool], start: float, tolerance: float = DEFAULT_TOLERANCE
) -> float | None:
    """Search the highest factor on a trace's rate at which its target is met.

    The factor is doubled, or halved, from ``start`` on until the target is met on one side and
    missed on the other; then the interval is halved, in ratio, until its ends are ``tolerance``
    apart. Goodput falls with the rate, but not everywhere: near the edge it may be met again a
    little above. So what is found is *an* edge, and the tolerance is that of the search.

    Args:
        is_met: Simulates at a factor and says whether the target is met.
        start: The first factor to try.
        tolerance: The factor found is at most this share below one at which the target was missed.

    Returns:
        The highest factor found at which the target is met, so the last one for which ``is_met``
        said yes; None when it is missed even at a rate close to nothing. A target that is met at
        an absurd rate is not searched any further.
    """
    low, high = _bracket(is_met, start)
    if low is None or high is None:
        return low
    while high > low * (1 + tolerance):
        middle = sqrt(low * high)
        if is_met(middle):
            low = middle
        else:
            high = middle
    return low


def _bracket(is_met: Callable[[float], bool], start: float) -> tuple[float | None, float | None]:
    """A factor at which the target is met and one, twice as high, at which it is missed."""
    scale = start
    if is_met(scale):
        while scale < start * _MOST_SCALE:
            if not is_met(2 * scale):
                return scale, 2 * scale
            scale *= 2
        return scale, None
    while scale > start * _LEAST_SCALE:
        scale /= 2
        if is_met(scale):
            return scale, 2 * scale
    return None, None
