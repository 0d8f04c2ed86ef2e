"""Least requests: the shortest line."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from policies.base import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.base import ReplicaView, RequestFacts

_load = attrgetter("in_flight", "last_dispatch")


class LeastRequests:
    """The replica with the fewest open requests of this router; ties in turn.

    nginx calls it ``least_conn``. It counts this router's own attempts and nothing else. The
    replicas' own ``running`` and ``waiting`` would show the load that other routers bring, but
    they are up to a poll old, so requests of one burst would all see the same replica as empty,
    and they count attempts that have ended since. Where several routers share a fleet, use
    ``least_kv``, which looks at the replicas themselves.
    """

    reads_prefix = False

    def choose(
        self,
        request: RequestFacts,  # noqa: ARG002 - every request counts the same here
        replicas: Sequence[ReplicaView],
        rng: Random,  # noqa: ARG002 - ties are broken by turn
    ) -> Choice:
        """Pick the replica with the fewest own attempts, of equals the least recently served."""
        return Choice(min(replicas, key=_load), "fewest_requests")
