"""Measures how much slower a replica is than its learned speed says, from second to second."""

from __future__ import annotations

from math import exp, log
from typing import Final

LEAST_SHARE: Final = 0.2
"""Share of a span that streams had at least, however much was prefilled in it."""

MOST_LOG: Final = 4.0


class PaceMeter:
    """Sums what one replica does between two looks."""

    __slots__ = ("_began_s", "_prefill_s", "_ratios", "_streams", "_tokens")

    def __init__(self, now: float) -> None:
        self._ratios: list[float] = []
        self._restart(0, now)

    def streamed(self, tokens: int) -> None:
        """So many tokens came, of any stream."""
        self._tokens += tokens

    def first_token(self, seen_s: float, expected_s: float, prefill_s: float) -> None:
        """A first token came.

        Args:
            seen_s: After the request was sent.
            expected_s: What was expected then, queue and all; above 0.
            prefill_s: Expected time of this prefill by itself.
        """
        ratio = log(max(seen_s, 1e-4) / expected_s)
        self._ratios.append(min(max(ratio, -MOST_LOG), MOST_LOG))
        self._prefill_s += prefill_s

    def step_slowness(
        self, streams: int, step_s: float, now: float, under_way: tuple[float, float] | None = None
    ) -> float | None:
        """Measured over expected time of decode steps since the last answer that was not None.

        Args:
            streams: On their way now.
            step_s: Expected time of a step, as things are.
            now: The time.
            under_way: When a prefill began that has not ended, and when it should; while it lasts
                streams get a token with each of its long steps only. None: there is none.

        Returns:
            None when too little came to tell; then the span goes on, unless it was all prefill.
        """
        mean_streams = (self._streams + streams) / 2
        span_s = now - self._began_s
        if not mean_streams or span_s <= 0:
            self._restart(streams, now)
            return None
        steps = self._tokens / mean_streams
        if steps < 1:
            return None
        if under_way is not None:
            began_s, end_s = under_way
            prefilling_s = min(now, end_s) - max(began_s, self._began_s)
            if prefilling_s > (1 - LEAST_SHARE) * span_s:
                self._restart(streams, now)
                return None
            self._prefill_s += max(prefilling_s, 0.0)
        decoding_s = max(span_s - self._prefill_s, LEAST_SHARE * span_s)
        self._restart(streams, now)
        return decoding_s / (steps * step_s)

    def prefill_slowness(self) -> float | None:
        """Seen over expected time to first token since the last call; None: none came."""
        ratios, self._ratios = self._ratios, []
        return exp(sum(ratios) / len(ratios)) if ratios else None

    def _restart(self, streams: int, now: float) -> None:
        self._streams = streams
        self._tokens = 0
        self._prefill_s = 0.0
        self._began_s = now
