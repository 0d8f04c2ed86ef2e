"""Who wins when several candidates are equally good."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.base import ReplicaView


def least(replicas: Sequence[ReplicaView], costs: Sequence[float], rng: Random) -> ReplicaView:
    """The replica of least cost; of equals, each with equal chance.

    Args:
        replicas: The candidates, never empty.
        costs: The cost of each, in the same order.
        rng: Asked only when there is a tie.
    """
    lowest = min(costs)
    tied = [replica for replica, cost in zip(replicas, costs, strict=True) if cost == lowest]
    return tied[0] if len(tied) == 1 else tied[int(rng.random() * len(tied))]
