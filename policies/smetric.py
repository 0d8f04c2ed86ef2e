"""SMetric: a session stays where its prefix is, as long as that is fast enough (vllm-router)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from policies.base import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.base import ReplicaView, RequestFacts


class SMetric:
    """vllm-router's smetric: stays with the cached prefix while that meets the TTFT, else balances.

    Source: vllm-project/router, ``src/policies/smetric.rs`` and ``docs/load_balancing``; after
    "SMetric: Rethink LLM Scheduling for Serving Agents with Balanced Session-centric Scheduling"
    (arXiv 2607.08565). ``work`` is what is queued plus what this request adds, in uncached tokens::

        home      the replica with most of the prompt cached; of equals, less work
        in time   work / prefill rate
                  <= slack x (ttft_slo_s + ttft_slo_s_per_1k x prompt / 1000)
        stay      cached > hit_ratio x history, and home is in time or nobody is
        else      the least work x own open requests; ties in turn

    What vllm-router counts itself stands in the views: queued work is the uncached tokens of own
    attempts without a first token. Its "history" is what the session's previous turn sent, read
    from the messages; a policy sees none of them, so the whole prompt is taken for it: a turn must
    find ``hit_ratio`` of its own prompt cached to count as one. Its prefill rate is the 90th
    percentile of 64 measured ones; here the router's learned speed gives the rate of such a
    prefill. A replica of unknown speed counts as in time, as there. Its attention term is left
    out: it is off by default, and queued work could not be priced by it. The defaults are those
    of the version of it that counts in tokens; the one that counts in characters wants them given.

    Args:
        hit_ratio: Share of the prompt that must be cached for the request to stay.
        slack: Scales the TTFT within which it stays.
        ttft_slo_s: The fixed part of that TTFT, in seconds.
        ttft_slo_s_per_1k: What each thousand prompt tokens add to it, in seconds.
    """

    def __init__(
        self,
        *,
        hit_ratio: float = 0.5,
        slack: float = 1.0,
        ttft_slo_s: float = 1.0,
        ttft_slo_s_per_1k: float = 0.0625,
    ) -> None:
        if not 0 <= hit_ratio <= 1:
            msg = f"hit_ratio is {hit_ratio}; allowed: 0 to 1"
            raise ValueError(msg)
        times = {"slack": slack, "ttft_slo_s": ttft_slo_s, "ttft_slo_s_per_1k": ttft_slo_s_per_1k}
        for name, value in times.items():
            if not 0 <= value < math.inf:
                msg = f"{name} is {value}; allowed: at least 0"
                raise ValueError(msg)
        self.hit_ratio = hit_ratio
        self.slack = slack
        self.ttft_slo_s = ttft_slo_s
        self.ttft_slo_s_per_1k = ttft_slo_s_per_1k

    def choose(
        self,
        request: RequestFacts,
        replicas: Sequence[ReplicaView],
        rng: Random,  # noqa: ARG002 - ties go in turn
    ) -> Choice:
        """Pick the request's home while that is fast enough, else by work and open requests."""
        home = min(replicas, key=lambda r: (-_cached(request, r), _work(request, r)))
        cached = _cached(request, home)
        if cached and cached > self.hit_ratio * request.prompt_tokens:
            if self._in_time(request, home):
                return Choice(home, "home")
            if not any(self._in_time(request, replica) for replica in replicas):
                return Choice(home, "home_nobody_in_time")
        best = min(replicas, key=lambda r: (_work(request, r) * r.in_flight, r.last_dispatch))
        return Choice(best, "moved" if cached else "balanced")

    def _in_time(self, request: RequestFacts, replica: ReplicaView) -> bool:
        if replica.forecast is None:
            return True
        tokens, cached = request.prompt_tokens, _cached(request, replica)
        new = max(tokens - cached, 1)
        rate = new / replica.forecast.speed.prefill_time_s(new, cached)
        limit_s = self.slack * (self.ttft_slo_s + self.ttft_slo_s_per_1k * tokens / 1000)
        return _work(request, replica) <= rate * limit_s


def _cached(request: RequestFacts, replica: ReplicaView) -> int:
    return min(request.cached.get(replica.name, 0), request.prompt_tokens)


def _work(request: RequestFacts, replica: ReplicaView) -> int:
    new_tokens = request.prompt_tokens - _cached(request, replica)
    return replica.in_flight_prefill_tokens + new_tokens
