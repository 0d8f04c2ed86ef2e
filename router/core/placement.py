"""Where a request may go as things are: health first, then the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.base import Choice, RequestFacts
    from router.core.chooser import Chooser
    from router.core.fleet import FleetState
    from router.core.replica import Replica
    from router.core.replica_health import ReplicaHealth
    from router.core.request import Request

BACKLOG_PREFILLS: Final = 4
"""Of what an outage has left waiting, a replica is given only so many at a time that it has not
begun to answer: else the first one that comes back would get it all."""


class Placement:
    """Offers the policy what health allows.

    Args:
        fleet: The replicas.
        chooser: Asks the policy.
    """

    def __init__(self, fleet: FleetState, chooser: Chooser) -> None:
        self._fleet = fleet
        self._chooser = chooser

    def place(self, request: Request, now: float, *, backlog: bool = False) -> Choice | None:
        """Where the request should go; None: nowhere, at present.

        A request that was not sent anywhere yet may be what a half-open replica proves itself by.

        Args:
            request: Who.
            now: The time.
            backlog: It waited because there was nobody to serve it.
        """
        fleet, facts = self._fleet, request.facts
        candidates = fleet.candidates(facts.model)
        again = request.attempts > 0
        if again:
            candidates = _untried(request, candidates)
        if fleet.health.limited and not (again and self._serve(candidates, facts)):
            serving = _untried(request, fleet.serving(facts.model))
            probe = fleet.health.probe(serving, facts.prompt_tokens, now)
            if probe is not None:
                if probe.serves_whole:
                    return self._chooser.direct(request, probe, "probe", now)
                # It proves itself as one of a pair.
                candidates = [probe, *(c for c in candidates if c.role is not probe.role)]
        if backlog:
            candidates = [c for c in candidates if c.in_flight_prefills < BACKLOG_PREFILLS]
        if not candidates:
            return None
        offered = self._offered(candidates, now, again=again)
        return self._chooser.ask(request, offered, now) if self._serve(offered, facts) else None

    def others(self, request: Request, now: float) -> bool:
        """Whether there is a replica that a request could be sent to again."""
        untried = _untried(request, self._fleet.candidates(request.facts.model))
        if not untried:
            return False
        offered = self._offered(untried, now, again=True)
        return self._serve(offered, request.facts)

    def _offered(
        self, candidates: Sequence[Replica], now: float, *, again: bool
    ) -> Sequence[Replica]:
        """Those that may get a request now; each side for itself, where it takes two."""
        health = self._fleet.health
        sides = self._fleet.sides(candidates)
        if len(sides) == 1:
            return health.offered(sides[0], now, again=again)
        return [r for side in sides for r in health.offered(side, now, again=again)]

    def _serve(self, offered: Sequence[Replica], facts: RequestFacts) -> bool:
        """Whether one of them serves the request alone, or two of them between them."""
        if not offered or not self._fleet.needs_pairs() or not facts.splits:
            return bool(offered)
        if any(replica.serves_whole for replica in offered):
            return True
        roles = {replica.role for replica in offered}
        return len(roles) > 1

    def soonest_s(self, request: Request, now: float) -> float | None:
        """How long until somebody may serve the request; None: nobody knows."""
        return self._fleet.health.soonest_s(self._fleet.serving(request.facts.model), now)


def _untried(request: Request, replicas: Sequence[Replica]) -> Sequence[Replica]:
    """Those that the request was not sent to, or that were out of service since."""
    tried, failures = request.tried, request.failures
    if not tried or failures is None:
        return [r for r in replicas if r not in tried] if tried else replicas
    return [r for r in replicas if r not in tried or _came_back(r.health, failures.get(r))]


def _came_back(health: ReplicaHealth, failed_s: float | None) -> bool:
    return (
        failed_s is not None and health.since_s > failed_s and (health.in_service or health.probing)
    )
