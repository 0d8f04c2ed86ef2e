"""Hedging: a second try beside the first one when the first token is late. Off by default.

It buys a shorter tail with prefills that are thrown away, so it pays where replicas are unsteady
and there is room; a router that knows why a replica is slow seldom needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

A = TypeVar("A")


@dataclass(slots=True, frozen=True, kw_only=True)
class HedgeSettings:
    """When a second try is made."""

    enabled: bool = False

    factor: float = 2.0
    """After so many times the expected time to first token."""

    least_s: float = 1.0
    """And so long at least."""

    max_share: float = 0.05
    """Second tries under way, as a share of all open requests."""

    max_prompt_tokens: int = 8192
    """Only for uncached prompts up to this length."""


def hedge_after_s(
    expected_s: float | None, prompt_tokens: int, settings: HedgeSettings
) -> float | None:
    """How long after it was sent a request that has no token yet is worth a second try.

    Args:
        expected_s: Time to first token that was expected when it was sent; None: not estimated.
        prompt_tokens: Uncached ones.
        settings: The rules.

    Returns:
        None when it never is.
    """
    if not settings.enabled or prompt_tokens > settings.max_prompt_tokens:
        return None
    return max(settings.factor * (expected_s or 0.0), settings.least_s)


def may_hedge(
    waited_s: float, other_s: float, hedges: int, active: int, settings: HedgeSettings
) -> bool:
    """Whether a second try, now that it is due, helps and can be afforded.

    Args:
        waited_s: Since the first try was sent.
        other_s: Expected time to first token on the best other replica.
        hedges: Second tries under way.
        active: Open requests of the whole router.
        settings: The rules.
    """
    return other_s < waited_s and hedges + 1 <= settings.max_share * active


@dataclass(slots=True)
class Hedge(Generic[A]):
    """Two tries of one request; the first one to yield a token wins."""

    first: A
    second: A

    def other(self, attempt: A) -> A:
        """The one to cancel when ``attempt`` has won, or to go on with when it has failed.

        Raises:
            ValueError: It is neither.
        """
        if attempt is self.first:
            return self.second
        if attempt is self.second:
            return self.first
        msg = f"{attempt!r} is none of the two tries"
        raise ValueError(msg)
