"""Bounds the share of the requests that replicas of little weight get.

A weight that policies may look at would not do: those that even out what is in flight send an idle
newcomer everything, and those that follow a prefix do not weigh at all. So whoever has had its
share is not offered to the policy. Each dispatch gives a replica credit for a little more than its
fair part of it, and being chosen costs one; with that no run of requests, however it is cut, gives
it more than its bound and ``MOST_CREDIT``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.core.replica_health import ReplicaHealth

MOST_CREDIT: Final = 2.0
"""Requests that a replica may get at once after it was passed over for a while."""


class Watched(Protocol):
    """A replica whose health is known."""

    @property
    def health(self) -> ReplicaHealth:
        """Its health."""

    @property
    def in_flight(self) -> int:
        """Own attempts that have not ended."""


R = TypeVar("R", bound=Watched)


def within_share(candidates: Sequence[R], most_over_fair: float, now: float) -> Sequence[R]:
    """Those of ``candidates`` that have not had their share yet; all, when all have.

    Two bounds hold for one of little weight: its credit, and its part of all that is in flight,
    which grows when it is slow.
    """
    in_flight = 1 + sum([candidate.in_flight for candidate in candidates])
    over_fair = most_over_fair * in_flight / _total_weight(candidates, now)
    found = []
    for candidate in candidates:
        health = candidate.health
        if health.limited:
            bound = max(health.weight(now) * over_fair, 1.0)
            if health.credit < 1.0 or candidate.in_flight + 1 > bound:
                continue
        found.append(candidate)
    return found or candidates


def charge(chosen: Watched, candidates: Sequence[Watched], over_fair: float, now: float) -> None:
    """One of ``candidates``, the whole choice before any bound, was sent a request."""
    earned = over_fair / _total_weight(candidates, now)
    for candidate in candidates:
        health = candidate.health
        if health.limited:
            health.credit = min(health.credit + earned * health.weight(now), MOST_CREDIT)
    if chosen.health.limited:
        chosen.health.credit = max(chosen.health.credit - 1.0, 0.0)


def _total_weight(candidates: Sequence[Watched], now: float) -> float:
    total = 0.0
    for candidate in candidates:
        health = candidate.health
        total += health.weight(now) if health.limited else 1.0
    return total
