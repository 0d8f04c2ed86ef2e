"""What the fleet can carry, and what it still could after losing its largest replicas."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policies.speed import Speed

UTILISATION: Final = 0.8
"""Share of its time that a replica can spend on prefills beside its streams."""

KV_UTILISATION: Final = 0.95
"""Share of the KV cache that can be filled before streams are preempted."""

RATE_SPAN_S: Final = 10.0
"""Load is what came within about so long: long enough for the few long prompts of some seconds to
even out, short enough that no more is taken on than the fleet works off within seconds."""


FINE_S: Final = 0.1
"""What comes within so long counts as come at once."""


@dataclass(slots=True, frozen=True)
class Capacity:
    """What a replica can carry, or several together."""

    prefill_tokens_per_s: float
    kv_tokens: float | None
    """Tokens that its KV cache holds; None: not known."""


@dataclass(slots=True, frozen=True)
class Load:
    """What a fleet is carrying."""

    prefill_tokens_per_s: float
    """Uncached prompt tokens that arrive."""
    kv_tokens: float
    """Tokens of KV in use and promised."""


@dataclass(slots=True, frozen=True)
class Headroom:
    """What is left."""

    prefill_tokens_per_s: float
    """Negative: so much is missing."""
    kv_tokens: float | None
    """The same; None: there is a replica whose KV cache is of unknown size."""

    @property
    def carries(self) -> bool:
        """Whether the fleet carries the load."""
        return self.fits(0)

    def fits(self, kv_tokens: float) -> bool:
        """Whether it would also carry a request of so many tokens, prompt and output."""
        return self.prefill_tokens_per_s >= 0 and (
            self.kv_tokens is None or self.kv_tokens >= kv_tokens
        )


def capacity(speed: Speed, kv_tokens: int | None, prompt_tokens: float) -> Capacity:
    """What a replica of a speed can carry of prompts of ``prompt_tokens`` each, the usual length
    of what is not cached."""
    tokens = max(prompt_tokens, 1.0)
    return Capacity(UTILISATION * tokens / speed.prefill_time_s(tokens), kv_tokens)


def together(fleet: Iterable[Capacity], *, lose: int = 0) -> Capacity:
    """What replicas carry together.

    Args:
        fleet: Each of them.
        lose: So many of the largest are lost: largest of each resource by itself, which is the
            worst that could happen.
    """
    left = list(fleet)
    speeds = sorted((each.prefill_tokens_per_s for each in left), reverse=True)
    sizes = [each.kv_tokens for each in left if each.kv_tokens is not None]
    if len(sizes) < len(left):
        return Capacity(sum(speeds[lose:]), None)
    sizes.sort(reverse=True)
    return Capacity(sum(speeds[lose:]), KV_UTILISATION * sum(sizes[lose:]))


def headroom(carried: Capacity, load: Load) -> Headroom:
    """What is left of ``carried`` under ``load``."""
    kv_tokens = None if carried.kv_tokens is None else carried.kv_tokens - load.kv_tokens
    return Headroom(carried.prefill_tokens_per_s - load.prefill_tokens_per_s, kv_tokens)


class Rate:
    """How much comes in a second, over about the last ``span_s`` seconds."""

    __slots__ = ("_amount", "_seen_s", "_span_s")

    def __init__(self, span_s: float = RATE_SPAN_S) -> None:
        self._span_s = span_s
        self._amount = 0.0
        self._seen_s = 0.0

    def add(self, amount: float, now: float) -> None:
        """So much came."""
        if now - self._seen_s > FINE_S:  # asked with each request
            self._fade(now)
        self._amount += amount

    def per_s(self, now: float) -> float:
        """The rate."""
        self._fade(now)
        return self._amount / self._span_s

    def _fade(self, now: float) -> None:
        if now > self._seen_s:
            self._amount *= exp(-(now - self._seen_s) / self._span_s)
            self._seen_s = now
