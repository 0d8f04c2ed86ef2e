"""Cache aware: the longest matching prefix, unless the load is uneven (SGLang's router)."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import TYPE_CHECKING

from policies.base import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.base import ReplicaView, RequestFacts

_load = attrgetter("in_flight", "last_dispatch")


class CacheAware:
    """SGLang's cache_aware: the longest cached prefix while the load is even, else fewest requests.

    Source: ``sgl-model-gateway/src/policies/cache_aware.rs`` in sgl-project/sglang; the defaults
    are those of its command line (``router_args.py``). Load is this router's own open requests::

        uneven    max - min > balance_abs_threshold
                  and max > balance_rel_threshold x min
        a match   cached / prompt tokens > cache_threshold

    Uneven: fewest requests. Else a match: the replica with the longest one, of equals the one with
    fewer requests. Else: fewest requests. SGLang's documents name the smallest prefix tree for that
    last case; its source takes the least loaded, and so does this. A small tree says little of
    load, and all that is new would follow it to one replica (sgl-project/sglang#14305).

    SGLang keeps a radix tree of its own, over characters, for each model; here the router's shared
    prefix index answers, over tokens, bounded by what each replica's KV cache can hold rather than
    by ``max_tree_size``. SMG, its successor, weighs the chosen replica against the mean load
    instead of max against min, with the same two constants. Other ties go in turn.

    Args:
        cache_threshold: Share of the prompt that must be cached somewhere for that to decide.
        balance_abs_threshold: How many more requests than the least loaded replica the most loaded
            one may have.
        balance_rel_threshold: How many times as many; the load is uneven when both are exceeded.
    """

    def __init__(
        self,
        *,
        cache_threshold: float = 0.3,
        balance_abs_threshold: int = 64,
        balance_rel_threshold: float = 1.5,
    ) -> None:
        if not 0 <= cache_threshold <= 1:
            msg = f"cache_threshold is {cache_threshold}; allowed: 0 to 1"
            raise ValueError(msg)
        if balance_abs_threshold < 0:
            msg = f"balance_abs_threshold is {balance_abs_threshold}; allowed: at least 0"
            raise ValueError(msg)
        if not 1 <= balance_rel_threshold < math.inf:
            msg = f"balance_rel_threshold is {balance_rel_threshold}; allowed: at least 1"
            raise ValueError(msg)
        self.cache_threshold = cache_threshold
        self.balance_abs_threshold = balance_abs_threshold
        self.balance_rel_threshold = balance_rel_threshold

    def choose(
        self,
        request: RequestFacts,
        replicas: Sequence[ReplicaView],
        rng: Random,  # noqa: ARG002 - ties are broken by load, then by turn
    ) -> Choice:
        """Pick by prefix when the load is even and enough of the prompt is cached, else by load."""
        loads = [replica.in_flight for replica in replicas]
        most, fewest = max(loads), min(loads)
        if (
            most - fewest > self.balance_abs_threshold
            and most > self.balance_rel_threshold * fewest
        ):
            return Choice(min(replicas, key=_load), "uneven_load")
        cached = request.cached
        matches = [cached.get(replica.name, 0) for replica in replicas] if cached else [0]
        longest = max(matches)
        if not longest or longest <= self.cache_threshold * request.prompt_tokens:
            return Choice(min(replicas, key=_load), "no_match")
        holders = [r for r, match in zip(replicas, matches, strict=True) if match == longest]
        return Choice(min(holders, key=_load), "longest_match")
