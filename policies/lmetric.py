"""LMetric: prefill work times batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.base import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.base import ReplicaView, RequestFacts


class LMetric:
    """LMetric's product: the least prefill work times batch size, with nothing to be tuned.

    Source: D. Zhang et al., "Simple is Better: Multiplication May Be All You Need for LLM Request
    Scheduling", OSDI 2026, arXiv 2603.15202::

        (queued prefill tokens + this request's uncached tokens) x (batch size + 1)

    The first factor says how long the first token takes, the second how many streams its prefill
    holds up; whatever weights they had would cancel out when two replicas are compared. The paper
    counts in its batch size what runs and what waits; here that is this router's own open requests,
    and the queued tokens are those of its attempts without a first token, so that neither is older
    than the last decision. In simulations the polled batch does no better, and without the queued
    tokens the capacity falls by 4 to 19 %. Two readings are ours: the request counts in the batch
    (else all idle replicas score zero, cached prefix or not), and at least one token is new, as
    engines always compute the last one (else a prompt cached everywhere scores zero everywhere).
    Equal products go to the smaller batch, then in turn.

    The paper's guard against a prefix that is too hot for its holders is left out: by its own
    account no workload has needed it. What is cached is what the router's shared prefix index
    says.
    """

    def choose(
        self,
        request: RequestFacts,
        replicas: Sequence[ReplicaView],
        rng: Random,  # noqa: ARG002 - ties go in turn
    ) -> Choice:
        """Pick the replica with the least product."""
        prompt, cached = request.prompt_tokens, request.cached
        best = replicas[0]
        least = (float("inf"), 0, 0)
        for replica in replicas:
            new_tokens = max(prompt - cached.get(replica.name, 0), 1)
            batch = replica.in_flight + 1
            work = replica.in_flight_prefill_tokens + new_tokens
            score = (work * batch, batch, replica.last_dispatch)
            if score < least:
                best, least = replica, score
        return Choice(best, "least_product")
