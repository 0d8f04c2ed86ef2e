"""What was seen of the cache events of one replica."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Since the start."""

    messages: int = 0
    events: int = 0
    gaps: int = 0
    """Times that messages were missed."""
    missed: int = 0
    """Messages that were."""
    restarts: int = 0
    """Times that numbers began anew: the engine did, with an empty cache."""
    malformed: int = 0
    """Messages that could not be read."""
    disconnects: int = 0
