"""Least KV: the replica with the most KV cache to spare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.base import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.base import ReplicaView, RequestFacts

SHARE_OF_UNKNOWN_REQUEST = 0.01
"""Share of a KV cache that one request takes, while no replica shows what it is. Any positive
number gives the same order then: there is nothing to weigh it against."""


class LeastKv:
    """The replica whose KV cache will be emptiest once its queue is let in.

    The engine's queue length hides how much the requests hold; the KV occupancy hides the queue.
    So both are brought to one number, the occupancy to come::

        kv_occupancy + (waiting + unseen) x share

    ``share`` is what one request holds on average: the sum of the candidates' occupancies over
    the sum of their running requests. ``unseen``, this router's own attempts that the last poll
    cannot know of, keeps a burst from running to one replica (as the credit for own dispatches
    in SGLang's ``least_load`` does); those that have ended meanwhile are left out.

    A replica whose occupancy is unknown counts as if each of this router's attempts there held
    one ``share``. So in a fleet that publishes nothing this is least requests, and in a mixed
    one all replicas are still measured in the same unit. Ties go in turn.
    """

    def choose(
        self,
        request: RequestFacts,  # noqa: ARG002 - it would take the same share of any replica
        replicas: Sequence[ReplicaView],
        rng: Random,  # noqa: ARG002 - ties are broken by turn
    ) -> Choice:
        """Pick the replica with the least KV occupancy to come."""
        share = _share_of_a_request(replicas)
        best = replicas[0]
        least = _occupancy_to_come(best, share)
        for replica in replicas[1:]:
            occupancy = _occupancy_to_come(replica, share)
            if occupancy < least or (
                occupancy == least and replica.last_dispatch < best.last_dispatch
            ):
                best, least = replica, occupancy
        return Choice(best, "own_count" if best.kv_occupancy is None else "least_kv")


def _share_of_a_request(replicas: Sequence[ReplicaView]) -> float:
    occupied = 0.0
    running = 0
    for replica in replicas:
        if replica.kv_occupancy is not None and replica.running:
            occupied += replica.kv_occupancy
            running += replica.running
    return occupied / running if occupied else SHARE_OF_UNKNOWN_REQUEST


def _occupancy_to_come(replica: ReplicaView, share: float) -> float:
    occupancy = replica.kv_occupancy
    if occupancy is None:
        return replica.in_flight * share
    queued = min(replica.unseen, replica.in_flight)
    if replica.waiting is not None:
        queued += replica.waiting
    return occupancy + queued * share
