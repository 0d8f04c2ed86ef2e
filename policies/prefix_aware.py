"""Prefix aware: any replica with the longest match, whatever its load (production-stack)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.base import Choice
from policies.least_requests import LeastRequests

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.base import ReplicaView, RequestFacts


class PrefixAware:
    """production-stack's prefixaware: one of those with the longest cached prefix, load unseen.

    Source: vllm-project/production-stack, ``src/vllm_router/routers/routing_logic.py``
    (``PrefixAwareRouter``) and ``prefix/hashtrie.py``. Of the replicas that share the longest match
    one is drawn, each with equal chance; a prompt that is new to all may go to any. There is no
    load term: a prefix that everybody shares, such as a system prompt, draws everybody to where it
    was served first, and only prompts that have nothing in common with it go elsewhere.

    production-stack hashes chunks of 128 characters into a trie that never forgets; here the
    router's shared prefix index answers, in tokens, and forgets what a replica's KV cache cannot
    hold any more. Below the least match it takes the replica with the fewest requests a second;
    without a clock the fewest open requests stand for that.

    Args:
        min_match_tokens: A shorter match counts as none (``--prefix-min-match-length`` there, in
            characters).
    """

    def __init__(self, *, min_match_tokens: int = 0) -> None:
        if min_match_tokens < 0:
            msg = f"min_match_tokens is {min_match_tokens}; allowed: at least 0"
            raise ValueError(msg)
        self.min_match_tokens = min_match_tokens
        self._without_match = LeastRequests()

    def choose(self, request: RequestFacts, replicas: Sequence[ReplicaView], rng: Random) -> Choice:
        """Draw one of the replicas that have the most of the prompt cached."""
        matches = [request.cached.get(replica.name, 0) for replica in replicas]
        longest = max(matches)
        if longest < self.min_match_tokens:
            return self._without_match.choose(request, replicas, rng)
        holders = [r for r, match in zip(replicas, matches, strict=True) if match == longest]
        chosen = holders[int(rng.random() * len(holders))]
        return Choice(chosen, "longest_match" if longest else "no_match")
