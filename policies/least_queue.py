"""Least queue: the shortest queue that the engines themselves report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.base import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.base import ReplicaView, RequestFacts


class LeastQueue:
    """The replica whose engine reports the fewest waiting requests, of equals the fewest running.

    What most routers do that look at engines at all, among them Ray Serve's power of two choices
    over queue lengths and the queue scorer of llm-d. It sees what all routers of a fleet together
    have sent. Attempts that the last poll cannot know of count as waiting, or one poll's arrivals
    would all join the same queue. Where nothing is published, own attempts without a first token
    stand for the queue and the others for what is running. Further ties go in turn.
    """

    def choose(
        self,
        request: RequestFacts,  # noqa: ARG002 - a queue is as long for everybody
        replicas: Sequence[ReplicaView],
        rng: Random,  # noqa: ARG002 - ties go in turn
    ) -> Choice:
        """Pick the replica with the shortest queue."""
        best = min(replicas, key=_line)
        return Choice(best, "own_count" if best.waiting is None else "shortest_queue")


def _line(replica: ReplicaView) -> tuple[int, int, int]:
    waiting = replica.waiting
    if waiting is None:
        waiting = replica.in_flight_prefills
    else:
        waiting += min(replica.unseen, replica.in_flight)
    running = replica.running
    if running is None:
        running = replica.in_flight - replica.in_flight_prefills
    return waiting, running, replica.last_dispatch
