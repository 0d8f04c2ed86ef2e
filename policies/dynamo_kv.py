"""Dynamo's KV router: prefill work plus KV in use, in one sum."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from policies.base import Choice
from policies.ties import least

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.base import ReplicaView, RequestFacts


class DynamoKv:
    """Dynamo's KV router: the least prefill work to do plus KV in use, both with this request.

    Source: ai-dynamo/dynamo, ``lib/kv-router/src/scheduling/selector/default.rs`` and "Routing
    Concepts" of its documents (the least wins, ties at random)::

        prefill_load_scale
            x max(prefill + prompt - overlap_score_credit x cached, 0)
            + decode + prompt

    Dynamo counts in KV blocks; tokens give the same order. "Prefill" are the uncached tokens
    of own attempts without a first token, "decode" the prompts of own attempts, to which
    ``router_track_output_blocks`` adds what they have streamed. Dynamo counts blocks that running
    requests share only once; from here they cannot be told apart and count for each. With a
    ``router_temperature`` the costs are scaled to 0…1 and one is drawn by ``exp(-cost / T)``.

    Dynamo learns what is cached from events of its own engines; here the router's shared prefix
    index answers, and there is one tier of cache. Its queue, which holds requests once every
    replica's prefills exceed a threshold, is no part of this.

    Args:
        overlap_score_credit: What a cached token takes off the prefill work.
        prefill_load_scale: Weight of prefill work beside KV in use.
        router_temperature: 0 takes the least cost; higher values choose more at random.
        router_track_output_blocks: Whether streamed tokens count as KV in use.
    """

    def __init__(
        self,
        *,
        overlap_score_credit: float = 1.0,
        prefill_load_scale: float = 1.0,
        router_temperature: float = 0.0,
        router_track_output_blocks: bool = False,
    ) -> None:
        for name, value in (
            ("overlap_score_credit", overlap_score_credit),
            ("prefill_load_scale", prefill_load_scale),
            ("router_temperature", router_temperature),
        ):
            if not 0 <= value < math.inf:
                msg = f"{name} is {value}; allowed: at least 0"
                raise ValueError(msg)
        self.overlap_score_credit = overlap_score_credit
        self.prefill_load_scale = prefill_load_scale
        self.router_temperature = router_temperature
        self.router_track_output_blocks = router_track_output_blocks

    def choose(self, request: RequestFacts, replicas: Sequence[ReplicaView], rng: Random) -> Choice:
        """Pick the replica of least cost, or draw one by cost when there is a temperature."""
        costs = [self.cost(request, replica) for replica in replicas]
        if not self.router_temperature:
            return Choice(least(replicas, costs, rng), "least_cost")
        return Choice(replicas[_drawn(costs, self.router_temperature, rng)], "drawn_by_cost")

    def cost(self, request: RequestFacts, replica: ReplicaView) -> float:
        """What is compared, in tokens."""
        prompt = request.prompt_tokens
        credit = self.overlap_score_credit * request.cached.get(replica.name, 0)
        prefill = max(replica.in_flight_prefill_tokens + prompt - credit, 0.0)
        decode = replica.in_flight_prompt_tokens + prompt
        if self.router_track_output_blocks:
            decode += replica.in_flight_output_tokens
        return self.prefill_load_scale * prefill + decode


def _drawn(costs: list[float], temperature: float, rng: Random) -> int:
    lowest = min(costs)
    span = max(costs) - lowest
    weights = [math.exp((lowest - cost) / span / temperature) if span else 1.0 for cost in costs]
    return rng.choices(range(len(costs)), weights)[0]
