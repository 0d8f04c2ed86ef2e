"""One reading of a replica's own gauges, whatever the engine calls them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Sample:
    """Gauges of one replica at one moment; None where the engine does not publish one."""

    running: int | None = None
    waiting: int | None = None
    kv_occupancy: float | None = None
    """Share of the KV cache in use, 0 to 1."""

    preemptions_total: int | None = None
    prefix_queries_total: int | None = None
    """Prompt tokens looked up in the prefix cache since the engine started."""

    prefix_hits_total: int | None = None
    """Prompt tokens found there."""

    kv_block_tokens: int | None = None
    """Tokens in one KV block."""

    kv_blocks: int | None = None
    """KV blocks in all."""

    adapters: frozenset[str] | None = None
    """Adapters (LoRA) that are loaded."""

    @property
    def prefix_hit_rate(self) -> float | None:
        """Share of looked-up prompt tokens found in the prefix cache; None when unknown."""
        if not self.prefix_queries_total or self.prefix_hits_total is None:
            return None
        return self.prefix_hits_total / self.prefix_queries_total
