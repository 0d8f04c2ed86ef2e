"""How fast requests are sent, by their priority: what those that wait can hope for."""

from __future__ import annotations

from math import exp
from typing import Final

OVER_S: Final = 5.0
"""What lies so far back counts for a third of what happens now."""

MAX_PRIORITIES: Final = 64
"""Priorities told apart; clients may make up any number of them."""


class Outflow:
    """Requests sent a second."""

    __slots__ = ("_rates",)

    def __init__(self) -> None:
        self._rates: dict[int, tuple[float, float]] = {}
        """Rate, and when it was that, by priority."""

    def sent(self, priority: int, now: float) -> None:
        """A request of that priority was sent."""
        if priority not in self._rates and len(self._rates) >= MAX_PRIORITIES:
            priority = max(self._rates)
        rate, at_s = self._rates.get(priority, (0.0, now))
        self._rates[priority] = (_faded(rate, now - at_s) + 1 / OVER_S, now)

    def rate(self, priority: int, now: float) -> float:
        """How many requests a second of this priority, or less urgent ones, are sent.

        The more urgent ones go first, so that nobody behind them can count on their turns.
        """
        rates = self._rates.items()
        return sum(_faded(r, now - at_s) for other, (r, at_s) in rates if other >= priority)


def _faded(rate: float, seconds: float) -> float:
    return rate * exp(-seconds / OVER_S)
