"""llm-d: a weighted sum of three scores, the queue, the KV cache and the prefix."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from policies.base import Choice
from policies.ties import least

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.base import ReplicaView, RequestFacts


class LlmD:
    """llm-d's default profile: the best sum of queue, KV cache and prefix scores, weighted 2, 2, 3.

    Source: llm-d/llm-d-router, ``pkg/epp/config/loader/defaults.go`` (the profile and its weights),
    ``scorer/queuedepth``, ``scorer/kvcacheutilization``, ``scorer/prefix`` and ``picker/maxscore``
    (the highest sum wins; candidates are shuffled before sorting, so ties fall at random). Each
    score is 0 to 1, 1 being best::

        queue   (longest - own) / (longest - shortest); 1 for all of equal length
        kv      1 - KV occupancy
        prefix  matched / all of the prompt

    llm-d looks at its replicas every 50 ms. Where a fleet is polled less often, that many more
    requests would all see the same short queue; so attempts that the last poll cannot know of and
    that have no first token yet count as queued. Its prefix scorer keeps an LRU of its own, over
    blocks; here the router's shared prefix index answers. Where a replica publishes no queue, the
    own attempts without a first token stand for it; where it publishes no KV occupancy, the tokens
    of own attempts over its KV cache (or, its size unknown too, over the most of any candidate).

    llm-d's flow control, which may hold or shed requests before any of this, is off by default
    there and is no part of this.

    Args:
        queue_weight: Weight of the queue's score.
        kv_weight: Weight of the KV cache's score.
        prefix_weight: Weight of the prefix's score.
    """

    def __init__(
        self, *, queue_weight: float = 2.0, kv_weight: float = 2.0, prefix_weight: float = 3.0
    ) -> None:
        weights = {"queue": queue_weight, "kv": kv_weight, "prefix": prefix_weight}
        for name, weight in weights.items():
            if not 0 <= weight < math.inf:
                msg = f"{name}_weight is {weight}; allowed: at least 0"
                raise ValueError(msg)
        self.queue_weight = queue_weight
        self.kv_weight = kv_weight
        self.prefix_weight = prefix_weight

    def choose(self, request: RequestFacts, replicas: Sequence[ReplicaView], rng: Random) -> Choice:
        """Pick the replica with the highest sum of scores."""
        queues = [_queue(replica) for replica in replicas]
        longest = max(queues)
        span = longest - min(queues)
        held = max(map(_tokens, replicas))
        length = request.prompt_tokens
        losses = []
        for replica, queue in zip(replicas, queues, strict=True):
            queue_score = (longest - queue) / span if span else 1.0
            kv_score = 1.0 - _occupancy(replica, held)
            match = request.cached.get(replica.name, 0)
            prefix_score = min(match / length, 1.0) if length else 0.0
            losses.append(
                -(
                    self.queue_weight * queue_score
                    + self.kv_weight * kv_score
                    + self.prefix_weight * prefix_score
                )
            )
        return Choice(least(replicas, losses, rng), "best_score")


def _queue(replica: ReplicaView) -> int:
    if replica.waiting is None:
        return replica.in_flight_prefills
    return replica.waiting + min(replica.unseen, replica.in_flight_prefills)


def _tokens(replica: ReplicaView) -> int:
    return replica.in_flight_prompt_tokens + replica.in_flight_output_tokens


def _occupancy(replica: ReplicaView, most_tokens: int) -> float:
    if replica.kv_occupancy is not None:
        return min(replica.kv_occupancy, 1.0)
    tokens = _tokens(replica)
    return min(tokens / (replica.kv_tokens or most_tokens), 1.0) if tokens else 0.0
