"""How fast one replica is, as far as it has been learned."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Speed:
    """The terms of a replica's speed, in seconds.

    A prefill of ``n`` tokens behind ``c`` cached ones takes ``prefill_s + token_s * n + pair_s *
    n * (c + n / 2)``; a step without any prefill ``step_s + stream_s * streams + context_s *
    context_tokens``. The form is that of measured engines: operators are linear in the tokens of
    a step (Vidur's GPU profiles), attention goes by pairs of tokens (its FLOPs), and decodes read
    the whole KV cache. What tensor parallelism costs is inside the terms.

    The first values are those of an 8B model on a GPU of 2023: what a fleet is taken for until
    its first answers have passed by.
    """

    prefill_s: float = 0.012
    token_s: float = 30e-6
    pair_s: float = 1.2e-9
    step_s: float = 0.010
    stream_s: float = 20e-6
    context_s: float = 50e-9
    steps_per_token: float = 1 / 8192
    """Further steps that one token of a prefill takes: one over the engine's token budget of a
    step. In each of them the decodes get a token too, so a small budget spares them."""

    prefill_factor: float = 1.0
    """By how much prefills are slower now than the terms say: it follows changes at once."""

    step_factor: float = 1.0
    """The same for steps of decodes."""

    def prefill_time_s(self, new_tokens: float, cached_tokens: float = 0.0) -> float:
        """Seconds that a prefill takes when it has the replica to itself."""
        pairs = new_tokens * (cached_tokens + new_tokens / 2)
        return self.prefill_factor * (
            self.prefill_s + self.token_s * new_tokens + self.pair_s * pairs
        )

    def step_time_s(self, streams: float, context_tokens: float) -> float:
        """Seconds from one output token to the next, with no prefill between."""
        return self.step_factor * (
            self.step_s + self.stream_s * streams + self.context_s * context_tokens
        )

    def stall_s(self, prefill_s: float, new_tokens: float, tpot_s: float) -> float:
        """How much a prefill takes of the time that a stream may take, at least nothing.

        While it lasts the stream still gets a token with each step that carries a part of it.
        """
        return max(prefill_s - tpot_s * (1 + self.steps_per_token * new_tokens), 0.0)
