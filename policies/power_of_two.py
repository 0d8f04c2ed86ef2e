"""Power of two choices: draw two, take the less busy one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.base import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.base import ReplicaView, RequestFacts


class PowerOfTwo:
    """The less busy of two replicas drawn at random, by this router's own open requests.

    Two draws bring most of what looking at every replica brings, and routers that know nothing of
    each other do not all run to the same replica: M. Mitzenmacher, "The Power of Two Choices in
    Randomized Load Balancing", IEEE TPDS 12(10), 2001. The two are always distinct.
    """

    reads_prefix = False

    def choose(
        self,
        request: RequestFacts,  # noqa: ARG002 - every request counts the same here
        replicas: Sequence[ReplicaView],
        rng: Random,
    ) -> Choice:
        """Draw two replicas and pick the one with fewer own attempts, of equals the first."""
        count = len(replicas)
        if count == 1:
            return Choice(replicas[0], "only")
        # A second draw from one place fewer, moved past the first, is never the first again.
        # random() times n is a fourth of the cost of randrange(n).
        first = int(rng.random() * count)
        second = int(rng.random() * (count - 1))
        second += second >= first
        one, other = replicas[first], replicas[second]
        return Choice(other if other.in_flight < one.in_flight else one, "less_busy_of_two")
