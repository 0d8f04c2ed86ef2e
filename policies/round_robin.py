"""Round robin: everyone in turn."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from policies.base import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.base import ReplicaView, RequestFacts

_last_dispatch = attrgetter("last_dispatch")


class RoundRobin:
    """The replica that was served longest ago, whatever its load.

    With a steady fleet this is the classic rotation. It needs no counter of its own: a replica
    that was away, or that serves another model too, finds its place by when it was last served.
    """

    reads_prefix = False

    def choose(
        self,
        request: RequestFacts,  # noqa: ARG002 - the rotation is blind to the request
        replicas: Sequence[ReplicaView],
        rng: Random,  # noqa: ARG002 - and leaves nothing to chance
    ) -> Choice:
        """Pick the least recently served replica; the first in order of those never served."""
        return Choice(min(replicas, key=_last_dispatch), "turn")
