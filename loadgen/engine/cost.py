"""How long a step takes.

``t = linear(n) + prefill attention + decode attention + all-reduce + cpu``, in which

- ``n`` is the number of tokens in the step: the prefill chunks, and one for each decode;
- ``linear(n) = max(floor, a + b * n)`` are all operators but attention: weight-bandwidth bound
  up to some 128 tokens, linear above 512. Constants are fitted to the per-operator GPU profiles
  that Vidur publishes (github.com/microsoft/vidur, ``data/profiling``, MIT); the fit is off by 10
  to 37 % in places (tile effects), so nothing finer can be claimed;
- prefill attention costs ``q * (c + q / 2)`` pairs of tokens for a chunk of ``q`` new tokens over
  ``c`` tokens that are there already (cached, or of earlier chunks): FLOPs from the model's
  shape at 50 % (H100) or 60 % (A100) of the peak;
- decode attention reads the KV of every decoding sequence at 80 % of the memory bandwidth;
- a tensor-parallel model does two all-reduces a layer, measured in Vidur's DGX profiles;
- the engine's own code adds about 2 ms a step and 0.01 ms a sequence (an estimate; the engines of
  2023 needed 15 to 20 ms).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadgen.engine.profile import Profile


class StepCost:
    """The step time formula of one profile, in seconds."""

    __slots__ = ("_profile", "context_s", "pair_s")

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self.pair_s = profile.attention.prefill_ms_per_token_pair / 1e3
        """Seconds for each pair of a new prefill token and a token that it looks at."""
        self.context_s = profile.attention.decode_ms_per_context_token / 1e3
        """Seconds for each token of context of each decoding sequence."""

    def base_s(self, tokens: int, sequences: int) -> float:
        """Everything but attention, for a step of ``tokens`` tokens and ``sequences`` sequences."""
        linear, cpu = self._profile.linear, self._profile.cpu
        ms = max(linear.floor_ms, linear.a_ms + linear.b_ms_per_1000_tokens * tokens / 1000)
        ms += cpu.step_ms + cpu.sequence_ms * sequences
        return (ms + self._all_reduce_ms(tokens)) / 1e3

    def prefill_attention_s(self, new_tokens: int, context_tokens: int) -> float:
        """Attention of a chunk of ``new_tokens`` behind ``context_tokens``."""
        return self.pair_s * new_tokens * (context_tokens + new_tokens / 2)

    def _all_reduce_ms(self, tokens: int) -> float:
        each = self._profile.all_reduce
        message_bytes = each.bytes_per_token * tokens
        return each.per_step * max(each.small_ms, each.a_ms + each.b_ms_per_byte * message_bytes)
