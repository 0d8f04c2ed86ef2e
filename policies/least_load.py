"""Least load: the least time to drain, plus a barrier before a full KV cache (SMG's gateway)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from policies.base import Choice
from policies.ties import least

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.base import ReplicaView, RequestFacts

FULLEST = 0.999
"""KV occupancies above count as this, so that the barrier stays finite."""


class LeastLoad:
    """SMG's least_load: the least queued work over throughput, plus a barrier on KV occupancy.

    Source: ``model_gateway/src/policies/least_load.rs`` in smg-project/smg (the least wins, ties
    at random)::

        (queued tokens + tokens sent since the poll) / throughput
            + kv_pressure_weight x k / (1 - k)

    where ``k`` is the polled KV occupancy, at most 0.999.

    SMG learns both token counts from engines behind gRPC; over HTTP it has the polled queue length
    times ``mean_prefill_tokens``. Here this router's own bookkeeping knows them: the uncached
    tokens of its attempts that have no first token yet, sent before the poll or after. Requests
    that wait there beyond those attempts are somebody else's and count ``mean_prefill_tokens``.
    A page of metrics tells no generation rate that all engines share, so ``default_throughput``
    stands for it, as in SMG where none is reported.

    A replica without polled values among others that have them counts ``in_flight x
    mean_prefill_tokens / default_throughput``; in a fleet that publishes nothing the fewest open
    requests win. Both as in SMG.

    Args:
        kv_pressure_weight: Seconds that the barrier costs at half a KV cache.
        mean_prefill_tokens: Stands for a prompt whose length nobody here knows.
        default_throughput: Tokens a second that a replica works off.
    """

    def __init__(
        self,
        *,
        kv_pressure_weight: float = 0.15,
        mean_prefill_tokens: int = 1024,
        default_throughput: float = 2000.0,
    ) -> None:
        if not 0 <= kv_pressure_weight < math.inf:
            msg = f"kv_pressure_weight is {kv_pressure_weight}; allowed: at least 0"
            raise ValueError(msg)
        if mean_prefill_tokens < 1:
            msg = f"mean_prefill_tokens is {mean_prefill_tokens}; allowed: at least 1"
            raise ValueError(msg)
        if not 0 < default_throughput < math.inf:
            msg = f"default_throughput is {default_throughput}; allowed: above 0"
            raise ValueError(msg)
        self.kv_pressure_weight = kv_pressure_weight
        self.mean_prefill_tokens = mean_prefill_tokens
        self.default_throughput = default_throughput

    def choose(
        self,
        request: RequestFacts,  # noqa: ARG002 - its own work is the same everywhere
        replicas: Sequence[ReplicaView],
        rng: Random,
    ) -> Choice:
        """Pick the replica with the least expected wait."""
        if all(replica.waiting is None and replica.kv_occupancy is None for replica in replicas):
            return Choice(least(replicas, [r.in_flight for r in replicas], rng), "own_count")
        waits_s = [self.wait_s(replica) for replica in replicas]
        return Choice(least(replicas, waits_s, rng), "least_wait")

    def wait_s(self, replica: ReplicaView) -> float:
        """What is compared: seconds to drain, plus the barrier."""
        if replica.waiting is None and replica.kv_occupancy is None:
            return replica.in_flight * self.mean_prefill_tokens / self.default_throughput
        strangers = max((replica.waiting or 0) - replica.in_flight_prefills, 0)
        tokens = replica.in_flight_prefill_tokens + strangers * self.mean_prefill_tokens
        full = min(replica.kv_occupancy or 0.0, FULLEST)
        return tokens / self.default_throughput + self.kv_pressure_weight * full / (1 - full)
