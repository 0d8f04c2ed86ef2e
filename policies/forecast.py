"""What is expected of one replica: its learned speed, and what its present load will cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Speed:
    """How fast one replica is, as far as it has been learned.

    A prefill of ``n`` tokens behind ``c`` cached ones takes ``prefill_s + token_s * n + pair_s *
    n * (c + n / 2)``; a step without any prefill ``step_s + stream_s * streams + context_s *
    context_tokens``. Sources of the form: Vidur's operator profiles, and the FLOPs of attention.
    """

    prefill_s: float = 0.010
    token_s: float = 30e-6
    pair_s: float = 1.2e-9
    step_s: float = 0.010
    stream_s: float = 20e-6
    context_s: float = 50e-9

    def prefill_time_s(self, new_tokens: float, cached_tokens: float = 0.0) -> float:
        """Seconds that a prefill takes when it has the replica to itself."""
        pairs = new_tokens * (cached_tokens + new_tokens / 2)
        return self.prefill_s + self.token_s * new_tokens + self.pair_s * pairs

    def step_time_s(self, streams: float, context_tokens: float) -> float:
        """Seconds from one output token to the next, with no prefill between."""
        return self.step_s + self.stream_s * streams + self.context_s * context_tokens


@dataclass(slots=True)
class Forecast:
    """What is expected of one replica, now."""

    speed: Speed
