"""Slow start: a replica that comes back gets its share little by little.

What warms is its prefix cache, so the ramp goes by prompt tokens computed, and by time where there
is little traffic. How its weight bounds its share stands in ``router.core.shares``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True, kw_only=True)
class SlowStartSettings:
    """How a replica is let in again."""

    warm_s: float = 20.0
    """The ramp ends after this time at the latest; 0: no ramp."""

    warm_tokens: int = 100_000
    """The ramp ends once so many prompt tokens were sent there."""

    least_weight: float = 0.1
    """Where the ramp begins, above 0 (Envoy's default)."""

    most_over_fair: float = 1.5
    """A replica whose weight is below 1 never gets more than this times its fair share."""


class SlowStart:
    """The ramp of one replica."""

    __slots__ = ("_began_s", "_settings", "_tokens")

    def __init__(self, settings: SlowStartSettings, now: float) -> None:
        self._settings = settings
        self._began_s = now
        self._tokens = 0

    def sent(self, prompt_tokens: int) -> None:
        """A request went there."""
        self._tokens += prompt_tokens

    def weight(self, now: float) -> float:
        """Its weight from 0 to 1; at 1 the ramp is over."""
        settings = self._settings
        if now - self._began_s >= settings.warm_s or self._tokens >= settings.warm_tokens:
            return 1.0
        ramp = max((now - self._began_s) / settings.warm_s, self._tokens / settings.warm_tokens)
        return max(settings.least_weight, ramp)
