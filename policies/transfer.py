"""What it takes to bring the KV of a prompt to a replica."""

from __future__ import annotations

from dataclasses import dataclass

LATENCY_S = 0.002
"""Until the first byte comes: handshake, descriptors, and the look for what has arrived."""

CROSS_ZONE = 2.0
"""How many times longer a token takes from another zone, until that was learned."""


def token_s(kv_bytes_per_token: float, link_bytes_per_s: float) -> float:
    """Seconds that the KV of one token takes over a link that nobody shares."""
    return kv_bytes_per_token / link_bytes_per_s


@dataclass(slots=True)
class Transfer:
    """Transfers of KV to one replica: time is linear in tokens, and the link is shared.

    Whoever drives the router learns the terms, as with :class:`policies.speed.Speed`.
    """

    token_s: float
    """For the KV of one token, from the same zone."""

    latency_s: float = LATENCY_S
    cross_zone: float = CROSS_ZONE
    """Factor on ``token_s`` between zones."""

    pending_tokens: int = 0
    """Tokens whose KV is on its way to the replica now."""

    def time_s(self, tokens: float, *, same_zone: bool = True) -> float:
        """Until the KV of ``tokens`` tokens has come, if its transfer began now.

        What is under way goes first: of two that share a link evenly, the later one is done when
        both are.
        """
        each_s = self.token_s if same_zone else self.token_s * self.cross_zone
        return self.latency_s + each_s * tokens + self.token_s * self.pending_tokens
