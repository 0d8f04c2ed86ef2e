"""What the fleet can carry, and what it still could after losing its largest replicas."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from policies.speed import Speed

UTILISATION: Final = 0.8
"""Share of its time that a replica can spend on prefills beside its streams."""

KV_UTILISATION: Final = 0.95
"""Share of the KV cache that can be filled before streams are preempted."""


@dataclass(slots=True, frozen=True)
class Capacity:
    """What one replica can carry."""

    prefill_tokens_per_s: float
    kv_tokens: int | None
    """Tokens that its KV cache holds; None: not known."""


@dataclass(slots=True, frozen=True)
class Load:
    """What a fleet is carrying."""

    prefill_tokens_per_s: float
    """Uncached prompt tokens that arrive."""
    kv_tokens: int
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

    def fits(self, kv_tokens: int) -> bool:
        """Whether it would also carry a request of so many tokens, prompt and output."""
        return self.prefill_tokens_per_s >= 0 and (
            self.kv_tokens is None or self.kv_tokens >= kv_tokens
        )


def capacity(speed: Speed, kv_tokens: int | None, prompt_tokens: float) -> Capacity:
    """What a replica of a speed can carry of prompts of ``prompt_tokens`` each, the usual length
    of what is not cached."""
    tokens = max(prompt_tokens, 1.0)
    return Capacity(UTILISATION * tokens / speed.prefill_time_s(tokens), kv_tokens)


def headroom(
    fleet: Mapping[str, Capacity],
    load: Load,
    *,
    lose: int = 0,
    without: Collection[str] = (),
) -> Headroom:
    """What is left of a fleet's capacity.

    Args:
        fleet: Replicas in service, by name.
        load: What they carry.
        lose: So many of the largest are lost: largest of each resource by itself, which is the
            worst that could happen.
        without: And these.
    """
    left = [capacity for name, capacity in fleet.items() if name not in without]
    speeds = sorted((c.prefill_tokens_per_s for c in left), reverse=True)
    prefill = sum(speeds[lose:]) - load.prefill_tokens_per_s
    sizes = [c.kv_tokens for c in left if c.kv_tokens is not None]
    if len(sizes) < len(left):
        return Headroom(prefill, None)
    sizes.sort(reverse=True)
    return Headroom(prefill, KV_UTILISATION * sum(sizes[lose:]) - load.kv_tokens)


class Rate:
    """Tokens per second, over about the last ``span_s`` seconds."""

    __slots__ = ("_seen_s", "_span_s", "_tokens")

    def __init__(self, span_s: float = 20.0) -> None:
        self._span_s = span_s
        self._tokens = 0.0
        self._seen_s = 0.0

    def add(self, tokens: float, now: float) -> None:
        """So many came."""
        self._fade(now)
        self._tokens += tokens

    def per_s(self, now: float) -> float:
        """The rate."""
        self._fade(now)
        return self._tokens / self._span_s

    def _fade(self, now: float) -> None:
        if now > self._seen_s:
            self._tokens *= exp(-(now - self._seen_s) / self._span_s)
            self._seen_s = now
