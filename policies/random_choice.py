"""Random: a fair draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.base import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.base import ReplicaView, RequestFacts


class RandomChoice:
    """Any replica with equal chance: the yardstick that a policy has to beat."""

    reads_prefix = False

    def choose(
        self,
        request: RequestFacts,  # noqa: ARG002 - a draw is blind to the request
        replicas: Sequence[ReplicaView],
        rng: Random,
    ) -> Choice:
        """Draw one replica."""
        return Choice(replicas[int(rng.random() * len(replicas))], "draw")
